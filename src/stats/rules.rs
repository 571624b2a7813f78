//! Rules: which groups a source belongs to, and how often its readings are expected.
//!
//! Read from text by `config/rules.rs`, kept in versions by `store/rules.rs`, asked by `ingest/commit/` for every
//! source of a frame. Pure. The first rule whose pattern stands for a source is its rule; the table of groups speaks of
//! sources by their names, whatever their rule. Guarantee: what a source's groups are depends on its id and the rules
//! alone, so it is the same on every node.

use super::Millis;
use super::glob::Glob;
use super::source::{self, RESERVED_PREFIX, SourceError};
use std::collections::HashMap;
use std::sync::Arc;

/// More rules than anybody writes by hand; each source tries them in their order once per frame at most.
pub const MAX_RULES: usize = 1_000;
/// Groups of one source: each costs what the source costs.
pub const MAX_GROUPS: usize = 8;
/// Rows and bytes of the table of groups.
pub const MAX_TABLE_ROWS: usize = 100_000;
pub const MAX_TABLE_BYTES: usize = 4 << 20;
/// Bytes of the file of rules: a thousand rules of a kilobyte.
pub const MAX_RULES_BYTES: usize = 1 << 20;

/// What holds for the sources of a pattern.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub pattern: Glob,
    pub groups: Vec<GroupName>,
    /// How long after one reading the next is expected.
    pub expect: Option<Millis>,
}

/// The name of a group as a rule writes it: text, and what the marks of the pattern stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupName {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// From 1; 0 is the whole id.
    Mark(usize),
}

/// Rules in the order in which they are tried, and the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    pub rules: Vec<Rule>,
    /// Ids of groups by source.
    table: HashMap<Box<str>, Vec<Arc<str>>>,
}

/// A source under some rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Explained {
    /// Index of its rule.
    pub rule: Option<usize>,
    /// Sorted, none twice.
    pub groups: Vec<Arc<str>>,
    /// Groups that it is not in because their ids would be none, and why.
    pub dropped: Vec<(String, SourceError)>,
}

impl GroupName {
    /// Reads a name for sources of this pattern: `region:{1}`, with `{{` and `}}` for braces.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str, pattern: &Glob) -> Result<Self, String> {
        if text.starts_with(RESERVED_PREFIX) {
            return Err(format!("\"{text}\": write the name without \"{RESERVED_PREFIX}\", which is put before it"));
        }
        let (mut pieces, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                plain.push_str(brace);
                rest = after;
                continue;
            }
            let number = if brace == "{" { rest.split_once('}') } else { None };
            let mark = number.and_then(|(number, after)| Some((number.parse::<usize>().ok()?, after)));
            let Some((mark, after)) = mark else {
                return Err(format!(
                    "\"{text}\": write {{1}} for what the first * or ? stands for, {{0}} for the whole id, {{{{ and }}}} for braces"
                ));
            };
            if mark > pattern.marks() {
                let marks = pattern.marks();
                return Err(format!("\"{text}\": there is no {{{mark}}}: \"{pattern}\" has {marks} of * and ?"));
            }
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Mark(mark));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        let name = Self { text: text.to_owned(), pieces };
        if name.pieces.is_empty() {
            return Err("a group has a name".to_owned());
        }
        // What is wrong whatever the marks stand for: one character each is the least.
        group_id(&name.expand("x", &vec!["x"; pattern.marks()])).map_err(|error| format!("\"{text}\": {error}"))?;
        Ok(name)
    }

    fn expand(&self, source: &str, captures: &[&str]) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Mark(0) => source.to_owned(),
            Piece::Mark(n) => captures[n - 1].to_owned(),
        };
        self.pieces.iter().map(piece).collect()
    }
}

/// The name as it is written.
impl std::fmt::Display for GroupName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// The source that is a group of this name.
///
/// # Errors
/// If the name is empty or cannot be a part of an id.
pub fn group_id(name: &str) -> Result<Arc<str>, SourceError> {
    match source::check(name) {
        Ok(()) => {}
        Err(SourceError::Reserved) if name.len() > RESERVED_PREFIX.len() => {}
        Err(SourceError::Reserved) => return Err(SourceError::Empty),
        Err(error) => return Err(error),
    }
    let id = format!("{RESERVED_PREFIX}{name}");
    if id.len() > source::MAX_SOURCE_BYTES { Err(SourceError::TooLong(id.len())) } else { Ok(id.into()) }
}

impl Rules {
    #[must_use]
    pub fn new(rules: Vec<Rule>, table: HashMap<Box<str>, Vec<Arc<str>>>) -> Self {
        Self { rules, table }
    }

    /// Whether nobody is in a group.
    #[must_use]
    pub fn has_no_groups(&self) -> bool {
        self.table.is_empty() && self.rules.iter().all(|rule| rule.groups.is_empty())
    }

    /// Whether any rule says how often readings are expected.
    #[must_use]
    pub fn expect_readings(&self) -> bool {
        self.rules.iter().any(|rule| rule.expect.is_some())
    }

    /// The most groups that a source may be in.
    #[must_use]
    pub fn most_groups(&self) -> usize {
        let of_rules = self.rules.iter().map(|rule| rule.groups.len()).max().unwrap_or_default();
        of_rules + self.table.values().map(Vec::len).max().unwrap_or_default()
    }

    /// Rows of the table.
    #[must_use]
    pub fn table_rows(&self) -> usize {
        self.table.values().map(Vec::len).sum()
    }

    /// The rule of a source, and its place.
    #[must_use]
    pub fn rule(&self, source: &str) -> Option<(usize, &Rule)> {
        self.rules.iter().enumerate().find(|(_, rule)| rule.pattern.matches(source))
    }

    /// What holds for a source. A group is none of any.
    #[must_use]
    pub fn explain(&self, source: &str) -> Explained {
        if source.starts_with(RESERVED_PREFIX) {
            return Explained::default();
        }
        let mut explained = Explained::default();
        if let Some((index, rule)) = self.rule(source) {
            explained.rule = Some(index);
            let captures = if rule.groups.is_empty() { None } else { rule.pattern.captures(source) };
            for name in
                captures.iter().flat_map(|captures| rule.groups.iter().map(|name| name.expand(source, captures)))
            {
                match group_id(&name) {
                    Ok(id) => explained.groups.push(id),
                    Err(error) => explained.dropped.push((name, error)),
                }
            }
        }
        explained.groups.extend(self.table.get(source).into_iter().flatten().cloned());
        explained.groups.sort_unstable();
        explained.groups.dedup();
        explained
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pattern: &str, groups: &[&str]) -> Rule {
        let pattern = Glob::parse(pattern).unwrap();
        let groups = groups.iter().map(|name| GroupName::parse(name, &pattern).unwrap()).collect();
        Rule { pattern, groups, expect: None }
    }

    #[test]
    fn the_first_rule_and_the_table() {
        let table = HashMap::from([("kitchen".into(), vec![group_id("house").unwrap(), group_id("a").unwrap()])]);
        let rules = Rules::new(
            vec![
                rule("weather.*.temperature", &["region:{1}", "temperature"]),
                rule("weather.*", &["all of {{{0}}}"]),
                rule("k*", &["{1}", "a"]),
            ],
            table,
        );
        let check = |source: &str, expected: Option<usize>, groups: &[&str]| {
            let explained = rules.explain(source);
            assert_eq!((explained.rule, explained.dropped.len()), (expected, 0), "{source}");
            assert_eq!(explained.groups.iter().map(|id| &**id).collect::<Vec<_>>(), groups, "{source}");
        };
        check("weather.west.temperature", Some(0), &["group:region:west", "group:temperature"]);
        check("weather.x", Some(1), &["group:all of {weather.x}"]);
        check("kitchen", Some(2), &["group:a", "group:house", "group:itchen"]);
        check("cellar", None, &[]);
        check("group:a", None, &[]);
        assert_eq!((rules.most_groups(), rules.table_rows()), (4, 2));
    }

    #[test]
    fn a_group_whose_id_would_be_none_is_dropped() {
        let rules = Rules::new(vec![rule("*", &["{1}.{1}", "all"])], HashMap::new());
        let explained = rules.explain(&"x".repeat(200));
        assert_eq!((explained.groups.len(), explained.dropped.len()), (1, 1));
        let rules = Rules::new(vec![rule("a*", &["{1}"])], HashMap::new());
        assert_eq!(rules.explain("a").dropped, [(String::new(), SourceError::Empty)]);
    }

    #[test]
    fn names_that_are_none() {
        let check = |name: &str, part: &str| {
            let error = GroupName::parse(name, &Glob::parse("a.*").unwrap()).unwrap_err();
            assert!(error.contains(part), "{name}: {error}");
        };
        check("", "a group has a name");
        check("group:x", "without \"group:\"");
        check("{2}", "has 1 of * and ?");
        check("{x}", "write {1}");
        check("a}", "write {1}");
        check("a\nb", "control character");
        check(&"x".repeat(251), "257 bytes");
    }
}
