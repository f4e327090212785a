//! motet
fn main(){}
