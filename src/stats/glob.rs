//! Patterns for names: `*` stands for any run of characters, also none, and `?` for one character.
//!
//! Used for channels (`live/channel.rs`), for rules (`rules.rs`) and for whatever else lists names. Pure. A backslash before
//! `*`, `?` or a backslash takes that character as it is; anywhere else it is itself. A pattern in which neither `*` nor
//! `?` stands is a name, with every backslash in it. Whole names are matched, case counts, and no character is special
//! to `*`. Guarantee: a match takes at most as many steps as the lengths of name and pattern multiplied, so no pattern
//! can blow it up.

use std::borrow::Cow;
use std::fmt;
use std::str::Chars;

/// Longest pattern, in bytes: that of the name of a channel.
pub const MAX_GLOB_BYTES: usize = 1_024;

/// Why a text is not a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    #[error("a pattern is not empty")]
    Empty,
    #[error("a pattern is at most {MAX_GLOB_BYTES} bytes long")]
    TooLong,
}

/// A pattern; see the module. Displayed as it was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Glob {
    text: Box<str>,
    tokens: Box<[Token]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Token {
    Just(char),
    Any,
    Run,
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// If it is empty or longer than [`MAX_GLOB_BYTES`]; every other text is a pattern.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        match text.len() {
            0 => Err(GlobError::Empty),
            1..=MAX_GLOB_BYTES => Ok(Self { text: text.into(), tokens: tokens(text) }),
            _ => Err(GlobError::TooLong),
        }
    }

    /// Whether this is a whole name the pattern stands for.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.walk(name, |_, _| ())
    }

    /// What each `*` and `?` stands for in a name, in their order; `None` if it is not a name of the pattern. Where
    /// a name can be cut in several ways, each `*` but the last stands for as little as it can.
    #[must_use]
    pub fn captures<'n>(&self, name: &'n str) -> Option<Vec<&'n str>> {
        let mut ends = vec![(0, 0); self.tokens.len()];
        if !self.walk(name, |at, span| ends[at] = span) {
            return None;
        }
        let captured = self.tokens.iter().zip(ends).filter(|(token, _)| !matches!(token, Token::Just(_)));
        Some(captured.map(|(_, (from, to))| &name[from..to]).collect())
    }

    /// How many captures it has.
    #[must_use]
    pub fn marks(&self) -> usize {
        self.tokens.iter().filter(|token| !matches!(token, Token::Just(_))).count()
    }

    /// Whether it stands for the name; on the way, what each `*` and `?` (an index of the tokens) stands for, the last
    /// word counting.
    #[inline]
    fn walk(&self, name: &str, mut stands_for: impl FnMut(usize, (usize, usize))) -> bool {
        let (mut rest, mut at) = (name.chars(), 0);
        let place = |rest: &Chars<'_>| name.len() - rest.as_str().len();
        // Where to go on if it does not fit: the last run passes over one character more. Earlier runs need not be
        // tried again: what comes behind the last one can only begin later with them.
        let mut again = None;
        loop {
            match self.tokens.get(at) {
                Some(Token::Run) => {
                    stands_for(at, (place(&rest), place(&rest)));
                    at += 1;
                    again = Some((rest.clone(), at, place(&rest)));
                    continue;
                }
                None if rest.as_str().is_empty() => return true,
                token => {
                    let before = place(&rest);
                    let next = rest.next();
                    let fits = match token {
                        Some(Token::Just(c)) => next == Some(*c),
                        Some(Token::Any) => next.is_some(),
                        _ => false,
                    };
                    if fits {
                        if token == Some(&Token::Any) {
                            stands_for(at, (before, place(&rest)));
                        }
                        at += 1;
                        continue;
                    }
                }
            }
            let Some((from, behind, begun)) = &mut again else { return false };
            if from.next().is_none() {
                return false;
            }
            (rest, at) = (from.clone(), *behind);
            stands_for(at - 1, (*begun, place(&rest)));
        }
    }

    /// With what all names begin that it stands for.
    #[must_use]
    pub fn prefix(&self) -> String {
        let just = |token: &Token| if let Token::Just(c) = token { Some(*c) } else { None };
        self.tokens.iter().map_while(just).collect()
    }

    /// The only name it stands for, if there is neither `*` nor `?` in it but escaped ones.
    #[must_use]
    pub fn exact(&self) -> Option<String> {
        let just = |token: &Token| if let Token::Just(c) = token { Some(*c) } else { None };
        self.tokens.iter().map(just).collect()
    }
}

/// The pattern that stands for this name alone.
#[must_use]
pub fn escape(name: &str) -> Cow<'_, str> {
    if !name.contains(['*', '?']) {
        return Cow::Borrowed(name);
    }
    let escaped = |c: char| matches!(c, '*' | '?' | '\\').then_some('\\').into_iter().chain([c]);
    Cow::Owned(name.chars().flat_map(escaped).collect())
}

fn tokens(text: &str) -> Box<[Token]> {
    let escapes = text.contains(['*', '?']);
    let mut characters = text.chars().peekable();
    let token = || {
        Some(match characters.next()? {
            '*' => Token::Run,
            '?' => Token::Any,
            '\\' if escapes => Token::Just(characters.next_if(|c| matches!(c, '*' | '?' | '\\')).unwrap_or('\\')),
            c => Token::Just(c),
        })
    };
    std::iter::from_fn(token).collect()
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(pattern: &str, names: &[&str], others: &[&str]) {
        let glob = Glob::parse(pattern).unwrap();
        assert_eq!(glob.to_string(), pattern);
        for name in names {
            assert!(glob.matches(name), "{pattern} is for {name}");
        }
        for name in others {
            assert!(!glob.matches(name), "{pattern} is not for {name}");
        }
    }

    #[test]
    fn what_patterns_stand_for() {
        check("kitchen", &["kitchen"], &["", "Kitchen", "kitchens", "kitche"]);
        check("*", &["", "a", "a/b:c.d\n", "Zürich"], &[]);
        check("closed:*", &["closed:", "closed:a"], &["closed", "live:a", " closed:a"]);
        check("greenhouse/*", &["greenhouse/", "greenhouse/1/north"], &["greenhouse"]);
        check("*.temp", &[".temp", "a.temp", "a.temp.temp"], &["a.temp1", "temp"]);
        check("a*b*c", &["abc", "aXbYc", "abcbc", "abbcc"], &["acb", "abcd", "ab"]);
        check("**a**", &["a", "bab"], &["", "b"]);
        check("room?", &["room1", "roomü", "room?"], &["room", "room12"]);
        check("?*?", &["ab", "üö", "abc"], &["", "a"]);
        check("[ab]*", &["[ab]", "[ab]c"], &["a", "b"]);
    }

    #[test]
    fn backslashes() {
        check(r"a\*b", &["a*b"], &["ab", "aXb", r"a\*b"]);
        check(r"a\?", &["a?"], &["ab", r"a\?"]);
        check(r"\\*", &[r"\", r"\a"], &["", "a", "*"]);
        check(r"c:\x*", &[r"c:\x", r"c:\xy"], &["c:x"]);
        check(r"*\", &[r"\", r"a\"], &["a"]);
        // A name is a name.
        check(r"\\server\share", &[r"\\server\share"], &[r"\server\share"]);
        assert_eq!(Glob::parse(r"\\server\share").unwrap().exact().as_deref(), Some(r"\\server\share"));
        assert_eq!(Glob::parse(r"a\*\?\\").unwrap().exact().as_deref(), Some(r"a*?\"));
        assert_eq!(Glob::parse("a*").unwrap().exact(), None);
        assert_eq!(Glob::parse("?").unwrap().exact(), None);
        assert_eq!(Glob::parse(r"a\*b?c*").unwrap().prefix(), "a*b");
        for name in ["a", "a*b", "?", r"c:\*", r"\\server\share", "*\\"] {
            assert_eq!(Glob::parse(&escape(name)).unwrap().exact().as_deref(), Some(name));
        }
    }

    #[test]
    fn captures() {
        let check = |pattern: &str, name: &str, expected: Option<&[&str]>| {
            let glob = Glob::parse(pattern).unwrap();
            assert_eq!(glob.captures(name).as_deref(), expected, "{pattern} in {name}");
            assert_eq!(expected.map_or(glob.marks(), <[&str]>::len), glob.marks());
        };
        check("weather.*.temperature", "weather.west.temperature", Some(&["west"]));
        check("weather.*.temperature", "weather.west.humidity", None);
        check("*.*", "a.b.c", Some(&["a", "b.c"]));
        check("*", "", Some(&[""]));
        check("kitchen", "kitchen", Some(&[]));
        check("r?.*", "rü.x", Some(&["ü", "x"]));
        check("*a?b*", "xaabb", Some(&["x", "a", "b"]));
        check("*?c", "abc", Some(&["a", "b"]));
        check(r"\**", "*x", Some(&["x"]));
        check("*.temp", "a.temp.temp", Some(&["a.temp"]));
    }

    #[test]
    fn lengths() {
        assert_eq!(Glob::parse("").unwrap_err(), GlobError::Empty);
        assert_eq!(Glob::parse(&"*".repeat(MAX_GLOB_BYTES + 1)).unwrap_err(), GlobError::TooLong);
        for length in [62, 63, 64, 65, 127, 128, MAX_GLOB_BYTES - 1] {
            let (marks, name) = ("?".repeat(length), "x".repeat(length));
            check(&marks, &[&name], &[&name[1..], &format!("x{name}")]);
            check(&format!("*{}", &marks[1..]), &[&name, &name[1..]], &[&name[2..]]);
        }
    }

    #[test]
    fn a_hard_pattern_takes_no_longer() {
        // A search that goes back would try each of the 2^100 ways here.
        let pattern = format!("{}b", "a*".repeat(100));
        check(&pattern, &[&format!("{}b", "a".repeat(1_000))], &[&"a".repeat(1_000)]);
    }

    /// The same by trying everything, on characters.
    fn tried(pattern: &[char], name: &[char]) -> bool {
        match pattern {
            [] => name.is_empty(),
            ['*', rest @ ..] => (0..=name.len()).any(|passed| tried(rest, &name[passed..])),
            ['?', rest @ ..] => !name.is_empty() && tried(rest, &name[1..]),
            ['\\', c @ ('*' | '?' | '\\'), rest @ ..] | [c, rest @ ..] => {
                name.first() == Some(c) && tried(rest, &name[1..])
            }
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_trying_everything(pattern in r"[ab\\*?ü]{1,9}[*?]", name in r"[ab\\*?ü]{0,9}") {
            let (pattern_, name_): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
            let glob = Glob::parse(&pattern).unwrap();
            prop_assert_eq!(glob.matches(&name), tried(&pattern_, &name_));
            // Put into the places of the marks, the captures give the name again.
            if let Some(captures) = glob.captures(&name) {
                let mut captures = captures.into_iter();
                let put = |token: &Token| match token {
                    Token::Just(c) => c.to_string(),
                    _ => captures.next().unwrap().to_owned(),
                };
                prop_assert_eq!(glob.tokens.iter().map(put).collect::<String>(), name);
            }
        }
    }
}
