//! motet-benches
