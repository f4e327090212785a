//! The functions that expressions may call, and how much work each is.
//!
//! A closed list, so that every call has a bounded cost and a misspelt name is told when a definition is read, not
//! when a run meets it. Used by the evaluator (checking) and by the cost estimate.

/// How a function's work and result relate to its receiver and arguments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Growth {
    /// A small result after one pass over the arguments.
    Scalar,
    /// A search that compares the argument at every place of the receiver.
    Search,
    /// A text no longer than the arguments together.
    Text,
    /// A list of texts, no more than the receiver has bytes.
    Split,
    /// Every element of the receiver with the separator between.
    Join,
    /// The receiver with every occurrence replaced.
    Replace,
    /// The argument itself.
    Same,
}

/// A function with the least and most arguments it takes, as `f(x)` and as `x.f()`.
pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) growth: Growth,
    global: Option<(usize, usize)>,
    member: Option<(usize, usize)>,
}

const fn function(
    name: &'static str,
    growth: Growth,
    global: Option<(usize, usize)>,
    member: Option<(usize, usize)>,
) -> Function {
    Function { name, growth, global, member }
}

const ONE: Option<(usize, usize)> = Some((1, 1));

/// Every function, without operators and macros.
pub(super) const FUNCTIONS: [Function; 24] = [
    function("size", Growth::Scalar, ONE, Some((0, 0))),
    function("contains", Growth::Scalar, None, ONE),
    function("startsWith", Growth::Scalar, None, ONE),
    function("endsWith", Growth::Scalar, None, ONE),
    function("matches", Growth::Scalar, Some((2, 2)), ONE),
    function("string", Growth::Text, ONE, None),
    function("int", Growth::Scalar, ONE, None),
    function("uint", Growth::Scalar, ONE, None),
    function("double", Growth::Scalar, ONE, None),
    function("bool", Growth::Scalar, ONE, None),
    function("bytes", Growth::Text, ONE, None),
    function("type", Growth::Scalar, ONE, None),
    function("dyn", Growth::Same, ONE, None),
    function("charAt", Growth::Text, None, ONE),
    function("indexOf", Growth::Search, None, Some((1, 2))),
    function("lastIndexOf", Growth::Search, None, Some((1, 2))),
    function("join", Growth::Join, None, Some((0, 1))),
    function("lowerAscii", Growth::Text, None, Some((0, 0))),
    function("upperAscii", Growth::Text, None, Some((0, 0))),
    function("replace", Growth::Replace, None, Some((2, 3))),
    function("split", Growth::Split, None, Some((1, 2))),
    function("substring", Growth::Text, None, Some((1, 2))),
    function("trim", Growth::Text, None, Some((0, 0))),
    function("reverse", Growth::Text, None, Some((0, 0))),
];

const MACROS: [&str; 7] = ["has", "all", "exists", "exists_one", "existsOne", "map", "filter"];

/// The function of a name.
pub(super) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

/// Says what is wrong with a call; none when it is right.
pub(super) fn check(name: &str, has_receiver: bool, arguments: usize) -> Result<(), String> {
    if MACROS.contains(&name) {
        let usage = if name == "has" { "has(a.b)".to_owned() } else { format!("list.{name}(x, ..)") };
        return Err(format!("'{name}' is used as {usage}"));
    }
    let Some(function) = find(name) else {
        let names = FUNCTIONS.iter().map(|function| function.name).chain(MACROS);
        return Err(format!("there is no function '{name}'{}", super::wording::suggestion(name, names)));
    };
    let (form, usage) = if has_receiver { (function.member, "x.") } else { (function.global, "") };
    match form {
        Some((least, most)) if (least..=most).contains(&arguments) => Ok(()),
        Some((least, most)) if least == most => {
            Err(format!("'{usage}{name}' takes {least} arguments, not {arguments}"))
        }
        Some((least, most)) => Err(format!("'{usage}{name}' takes {least} to {most} arguments, not {arguments}")),
        None if has_receiver => Err(format!("'{name}' is called as '{name}(x)', not as 'x.{name}()'")),
        None => Err(format!("'{name}' is called as 'x.{name}(..)', not as '{name}(x, ..)'")),
    }
}
