//! Patterns for names: `*` stands for any run of characters, also none, and `?` for one character.
//!
//! Used for channels (`live/channel.rs`) and for whatever else lists names that are allowed. Pure. A backslash before
//! `*`, `?` or a backslash takes that character as it is; anywhere else it is itself. A pattern in which neither `*` nor
//! `?` stands is a name, with every backslash in it. Whole names are matched, case counts, and no character is special
//! to `*`. Guarantee: a match takes time in proportion to the name, whatever the pattern, which no name can blow up:
//! the pattern runs over the name once, all its places at the same time, as bits.

use std::fmt;

/// Longest pattern, in bytes: that of the name of a channel.
pub const MAX_GLOB_BYTES: usize = 1_024;

/// A place for each character of the longest pattern, and the end.
const WORDS: usize = MAX_GLOB_BYTES / 64 + 1;

/// Why a text is not a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    #[error("a pattern is not empty")]
    Empty,
    #[error("a pattern is at most {MAX_GLOB_BYTES} bytes long")]
    TooLong,
}

/// A pattern; see the module. Displayed as it was written.
#[derive(Clone, Debug)]
pub struct Glob {
    text: Box<str>,
    /// What stands before the first `*` or `?`, without escapes; all of it if there is none.
    prefix: Box<str>,
    /// What comes behind it; none if nothing does.
    rest: Option<Rest>,
}

/// Places 0 to `length` of a pattern: at a place, so many of its characters have been found.
#[derive(Clone, Debug)]
struct Rest {
    length: usize,
    /// From which places each character leads to the next one; sorted by character.
    steps: Box<[(char, Box<[u64]>)]>,
    /// From which places any character leads to the next one: `?`.
    any: Box<[u64]>,
    /// At which places any character may be passed over: `*`.
    runs: Box<[u64]>,
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// If it is empty or longer than [`MAX_GLOB_BYTES`]; every other text is a pattern.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        match text.len() {
            0 => Err(GlobError::Empty),
            1..=MAX_GLOB_BYTES => Ok(Self::read(text)),
            _ => Err(GlobError::TooLong),
        }
    }

    fn read(text: &str) -> Self {
        let (mut prefix, mut tokens) = (String::new(), Vec::new());
        let mut characters = text.chars().peekable();
        let escapes = text.contains(['*', '?']);
        while let Some(c) = characters.next() {
            let token = match c {
                '*' => Token::Run,
                '?' => Token::Any,
                '\\' if escapes => Token::Just(characters.next_if(|c| matches!(c, '*' | '?' | '\\')).unwrap_or(c)),
                _ => Token::Just(c),
            };
            match token {
                Token::Just(c) if tokens.is_empty() => prefix.push(c),
                _ => tokens.push(token),
            }
        }
        let rest = (!tokens.is_empty()).then(|| Rest::new(&tokens));
        Self { text: text.into(), prefix: prefix.into(), rest }
    }

    /// Whether this is a whole name the pattern stands for. Up to 17 steps for each character of the name, one if
    /// the pattern has fewer than 64.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match (name.strip_prefix(&*self.prefix), &self.rest) {
            (Some(behind), Some(rest)) => rest.matches(behind),
            (Some(behind), None) => behind.is_empty(),
            (None, _) => false,
        }
    }

    /// The only name it stands for, if there is neither `*` nor `?` in it but escaped ones.
    #[must_use]
    pub fn exact(&self) -> Option<&str> {
        self.rest.is_none().then_some(&*self.prefix)
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Just(char),
    Any,
    Run,
}

impl Rest {
    fn new(tokens: &[Token]) -> Self {
        let length = tokens.iter().filter(|token| **token != Token::Run).count();
        let none = || vec![0; length / 64 + 1].into_boxed_slice();
        let (mut any, mut runs) = (none(), none());
        let mut steps: Vec<(char, Box<[u64]>)> = Vec::new();
        let mut place = 0;
        for token in tokens {
            let (word, bit) = (place / 64, 1 << (place % 64));
            match token {
                Token::Run => runs[word] |= bit,
                Token::Any => any[word] |= bit,
                Token::Just(c) => {
                    let at = steps.binary_search_by_key(c, |(c, _)| *c).unwrap_or_else(|at| {
                        steps.insert(at, (*c, none()));
                        at
                    });
                    steps[at].1[word] |= bit;
                }
            }
            place += usize::from(*token != Token::Run);
        }
        Self { length, steps: steps.into(), any, runs }
    }

    fn matches(&self, name: &str) -> bool {
        let words = self.any.len();
        let mut at = [0; WORDS];
        at[0] = 1;
        for c in name.chars() {
            let step = self.steps.binary_search_by_key(&c, |(c, _)| *c).ok().map(|found| &self.steps[found].1);
            let (mut carried, mut alive) = (0, 0);
            for word in 0..words {
                let leading = at[word] & (self.any[word] | step.map_or(0, |step| step[word]));
                at[word] = (at[word] & self.runs[word]) | (leading << 1) | carried;
                carried = leading >> 63;
                alive |= at[word];
            }
            if alive == 0 {
                return false;
            }
        }
        at[self.length / 64] & (1 << (self.length % 64)) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(pattern: &str, names: &[&str], others: &[&str]) {
        let glob = Glob::parse(pattern).unwrap();
        assert_eq!(glob.to_string(), pattern);
        names.iter().for_each(|name| assert!(glob.matches(name), "{pattern} is for {name}"));
        others.iter().for_each(|name| assert!(!glob.matches(name), "{pattern} is not for {name}"));
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
        assert_eq!(Glob::parse(r"\\server\share").unwrap().exact(), Some(r"\\server\share"));
        assert_eq!(Glob::parse(r"a\*\?\\").unwrap().exact(), Some(r"a*?\"));
        assert_eq!(Glob::parse("a*").unwrap().exact(), None);
        assert_eq!(Glob::parse("?").unwrap().exact(), None);
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
            prop_assert_eq!(Glob::parse(&pattern).unwrap().matches(&name), tried(&pattern_, &name_));
        }
    }
}
