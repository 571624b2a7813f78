//! The file of rules and the table of groups: read from disk, and read as rules.
//!
//! Called by `cli/` with files and by `store/rules.rs` with what the store keeps, which is the text of both. An error
//! names the file and the line. What the rules then mean is in `stats/rules.rs`.

use super::duration;
use crate::stats::Millis;
use crate::stats::calendar::{Period, Zone};
use crate::stats::glob::Glob;
use crate::stats::rules::{
    GroupName, MAX_GROUPS, MAX_RULES, MAX_RULES_BYTES, MAX_TABLE_BYTES, MAX_TABLE_ROWS, Rule, Rules, group_id,
};
use crate::stats::source;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use toml::de::{DeTable, DeValue};

/// Rules as they are written: what is kept and sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenRules {
    /// The file of rules, TOML.
    pub rules: String,
    /// The table of groups that it names, CSV.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<String>,
}

/// What is wrong with rules, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct RulesError {
    /// A path, or what the text is.
    pub file: String,
    /// From 1; `None` if it is about the whole file.
    pub line: Option<usize>,
    pub reason: String,
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.reason),
            None => write!(f, "{}: {}", self.file, self.reason),
        }
    }
}

/// A line and a reason, before it is known what the file is called.
type Wrong = (Option<usize>, String);

impl WrittenRules {
    /// Reads a file of rules and the table it names, which is looked for beside it, and checks both.
    ///
    /// # Errors
    /// Names the file, and the line if it is about one.
    pub fn read(path: &Path) -> Result<(Self, Rules), RulesError> {
        let shown = path.display().to_string();
        let rules = text_of(path, MAX_RULES_BYTES)?;
        let parsed = parse_file(&rules).map_err(|wrong| at(&shown, wrong))?;
        let Some(name) = &parsed.table else {
            return Ok((
                Self { rules, groups: None },
                parsed.with_table(HashMap::new()).map_err(|wrong| at(&shown, wrong))?,
            ));
        };
        let table_path = path.parent().unwrap_or(Path::new("")).join(name);
        let groups = text_of(&table_path, MAX_TABLE_BYTES)?;
        let table = parse_table(&groups).map_err(|wrong| at(&table_path.display().to_string(), wrong))?;
        let parsed = parsed.with_table(table).map_err(|wrong| at(&shown, wrong))?;
        Ok((Self { rules, groups: Some(groups) }, parsed))
    }

    /// The rules of these texts.
    ///
    /// # Errors
    /// As [`Self::read`]; the files are called `rules` and the name that the rules have for the table.
    pub fn parse(&self) -> Result<Rules, RulesError> {
        let wrong = |wrong| at("rules", wrong);
        if self.rules.len() > MAX_RULES_BYTES {
            return Err(wrong(too_large(MAX_RULES_BYTES)));
        }
        let parsed = parse_file(&self.rules).map_err(wrong)?;
        let table = match (&self.groups, &parsed.table) {
            (None, None) => HashMap::new(),
            (Some(_), None) => return Err(wrong((None, "there is a table of groups, and no groups_file".to_owned()))),
            (None, Some(name)) => return Err(at(name, (None, "the table of groups is missing".to_owned()))),
            (Some(text), Some(name)) if text.len() > MAX_TABLE_BYTES => {
                return Err(at(name, too_large(MAX_TABLE_BYTES)));
            }
            (Some(text), Some(name)) => parse_table(text).map_err(|wrong| at(name, wrong))?,
        };
        parsed.with_table(table).map_err(wrong)
    }
}

fn at(file: &str, (line, reason): Wrong) -> RulesError {
    RulesError { file: file.to_owned(), line, reason }
}

fn too_large(most: usize) -> Wrong {
    (None, format!("it is larger than {} KiB", most >> 10))
}

fn text_of(path: &Path, most: usize) -> Result<String, RulesError> {
    let shown = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|error| at(&shown, (None, format!("cannot read it: {error}"))))?;
    if text.len() > most { Err(at(&shown, too_large(most))) } else { Ok(text) }
}

struct Parsed {
    rules: Vec<Rule>,
    table: Option<String>,
}

impl Parsed {
    fn with_table(self, table: HashMap<Box<str>, Vec<Arc<str>>>) -> Result<Rules, Wrong> {
        let rules = Rules::new(self.rules, table);
        match rules.most_groups() {
            0..=MAX_GROUPS => Ok(rules),
            most => Err((
                None,
                format!(
                    "a source could be in {most} groups, by a rule and by the table together: at most {MAX_GROUPS} are allowed"
                ),
            )),
        }
    }
}

fn parse_file(text: &str) -> Result<Parsed, Wrong> {
    let line = |span: Range<usize>| Some(1 + text[..span.start.min(text.len())].matches('\n').count());
    let document = DeTable::parse(text)
        .map_err(|error| (error.span().map_or(Some(1), line), format!("this is not TOML: {}", error.message())))?;
    let mut parsed = Parsed { rules: Vec::new(), table: None };
    for (key, value) in document.get_ref() {
        match (&**key.get_ref(), value.get_ref()) {
            ("groups_file", DeValue::String(name)) if !name.is_empty() => parsed.table = Some(name.to_string()),
            ("groups_file", _) => {
                return Err((line(key.span()), "groups_file: write the name of a file in quotes".to_owned()));
            }
            ("rule", DeValue::Array(rules)) => {
                if rules.len() > MAX_RULES {
                    return Err((line(key.span()), format!("{} rules, at most {MAX_RULES} are allowed", rules.len())));
                }
                for rule in rules {
                    let DeValue::Table(table) = rule.get_ref() else {
                        return Err((line(rule.span()), "write each rule as [[rule]] and its keys".to_owned()));
                    };
                    parsed
                        .rules
                        .push(parse_rule(table).map_err(|(at, reason)| (line(at.unwrap_or(rule.span())), reason))?);
                }
            }
            ("rule", _) => return Err((line(key.span()), "write [[rule]], with two brackets".to_owned())),
            (other, _) => {
                return Err((
                    line(key.span()),
                    format!("{other}: there is no such key: write [[rule]] or groups_file"),
                ));
            }
        }
    }
    Ok(parsed)
}

/// A place in the text, and a reason.
type WrongKey = (Option<Range<usize>>, String);

fn parse_rule(table: &DeTable<'_>) -> Result<Rule, WrongKey> {
    let pattern = table.iter().find(|(key, _)| key.get_ref() == "match");
    let Some((key, pattern)) = pattern else {
        return Err((None, "a rule says by match = \"...\" which sources it is for".to_owned()));
    };
    let wrong = |reason: String| (Some(key.span()), format!("match: {reason}"));
    let DeValue::String(pattern) = pattern.get_ref() else { return Err(wrong("write a pattern in quotes".to_owned())) };
    let pattern = Glob::parse(pattern).map_err(|error| wrong(error.to_string()))?;
    let mut rule = Rule { pattern, groups: Vec::new(), expect: None };
    for (key, value) in table {
        let name = &**key.get_ref();
        let wrong = |reason: String| (Some(key.span()), format!("{name}: {reason}"));
        match name {
            "match" => {}
            "groups" => {
                for text in texts(value.get_ref()).map_err(wrong)? {
                    rule.groups.push(GroupName::parse(&text, &rule.pattern).map_err(wrong)?);
                }
                if rule.groups.len() > MAX_GROUPS {
                    return Err(wrong(format!("{} groups, at most {MAX_GROUPS} are allowed", rule.groups.len())));
                }
            }
            "expect" => rule.expect = Some(span(value.get_ref()).map_err(wrong)?),
            "periods" | "timezone" | "lateness" | "retain" => return Err(wrong(not_yet(name, value.get_ref()))),
            _ => {
                return Err(wrong("there is no such key: write match, groups or expect".to_owned()));
            }
        }
    }
    Ok(rule)
}

/// Keys that are known and are not taken yet: the one place that says so. What is wrong with their values is said first.
fn not_yet(name: &str, value: &DeValue<'_>) -> String {
    let checked = match name {
        "periods" => texts(value).and_then(|periods| {
            periods.iter().try_for_each(|text| text.parse::<Period>().map(drop).map_err(|error| error.to_string()))
        }),
        "timezone" => text(value).and_then(|zone| zone.parse::<Zone>().map(drop).map_err(|error| error.to_string())),
        "lateness" => span(value).map(drop),
        _ => texts(value).map(drop),
    };
    let flag = if name == "periods" { "--periods" } else { &format!("--{name}") };
    checked.err().unwrap_or_else(|| format!("this cannot differ by source yet: {flag} is for all of them"))
}

fn text(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        _ => Err("write a text in quotes".to_owned()),
    }
}

fn texts(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    match value {
        DeValue::Array(items) => items.iter().map(|item| text(item.get_ref())).collect(),
        _ => Err("write a list of texts: [\"...\"]".to_owned()),
    }
}

fn span(value: &DeValue<'_>) -> Result<Millis, String> {
    let span = duration(&text(value)?)?;
    if span == 0 { Err("this is no time at all".to_owned()) } else { Ok(span) }
}

/// Two columns, `source` and `group`, in this order or the other.
fn parse_table(text: &str) -> Result<HashMap<Box<str>, Vec<Arc<str>>>, Wrong> {
    let mut table: HashMap<Box<str>, Vec<Arc<str>>> = HashMap::new();
    let mut ids: HashMap<String, Arc<str>> = HashMap::new();
    let mut reader = csv::ReaderBuilder::new().from_reader(text.trim_start_matches('\u{feff}').as_bytes());
    let line = |position: Option<&csv::Position>| position.map(|position| position.line() as usize);
    let wrong = |error: csv::Error| (line(error.position()), format!("this is not CSV: {error}"));
    let header = reader.headers().map_err(wrong)?;
    let (source_at, group_at) = match header.iter().collect::<Vec<_>>()[..] {
        ["source", "group"] => (0, 1),
        ["group", "source"] => (1, 0),
        _ => return Err((Some(1), "the first line is to be: source,group".to_owned())),
    };
    for (index, record) in reader.records().enumerate() {
        let record = record.map_err(wrong)?;
        let at = line(record.position());
        if index == MAX_TABLE_ROWS {
            return Err((at, format!("more than {MAX_TABLE_ROWS} rows")));
        }
        let (source, group) = (&record[source_at], &record[group_at]);
        source::check(source).map_err(|error| (at, error.to_string()))?;
        if group.starts_with(source::RESERVED_PREFIX) {
            return Err((
                at,
                format!("group: write \"{group}\" without \"{}\", which is put before it", source::RESERVED_PREFIX),
            ));
        }
        let id = if let Some(id) = ids.get(group) {
            Arc::clone(id)
        } else {
            let id = group_id(group).map_err(|error| (at, format!("group: {error}")))?;
            ids.insert(group.to_owned(), Arc::clone(&id));
            id
        };
        let groups = table.entry(source.into()).or_default();
        if !groups.contains(&id) {
            groups.push(id);
        }
        if groups.len() > MAX_GROUPS {
            return Err((at, format!("{source} is in more than {MAX_GROUPS} groups")));
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(rules: &str, groups: Option<&str>) -> WrittenRules {
        WrittenRules { rules: rules.to_owned(), groups: groups.map(str::to_owned) }
    }

    #[test]
    fn a_file_and_its_table() {
        let text = "groups_file = \"groups.csv\"\n[[rule]]\nmatch = \"weather.*.t\"\ngroups = [\"region:{1}\"]\nexpect = \"10s\"\n\n[[rule]]\nmatch = \"*\"\n";
        let table = "\u{feff}group,source\nhouse,kitchen\n\"a,b\",kitchen\nhouse,kitchen\n";
        let rules = written(text, Some(table)).parse().unwrap();
        assert_eq!(rules.rules.len(), 2);
        assert_eq!(rules.rules[0].expect, Some(10_000));
        assert_eq!(&*rules.explain("weather.west.t").groups[0], "group:region:west");
        assert_eq!(rules.explain("kitchen").groups.len(), 2);
        assert_eq!(written("", None).parse().unwrap(), Rules::default());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let check = |rules: &str, groups: Option<&str>, expected: &str| {
            let error = written(rules, groups).parse().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{rules}: {error}");
        };
        check("[[rule]]\ngroups = 1", None, "rules:1: a rule says by match");
        check("[[rule]]\nmatch = \"\"", None, "rules:2: match: a pattern is not empty");
        check("[[rule]]\nmatch = \"a\"\ngroups = [\"{1}\"]", None, "rules:3: groups: \"{1}\": there is no {1}");
        check("[[rule]]\nmatch = \"a\"\ngroups = \"x\"", None, "rules:3: groups: write a list");
        check("[[rule]]\nmatch = \"a\"\nexpect = \"10\"", None, "rules:3: expect: \"10\" is not a duration");
        check("[[rule]]\nmatch = \"a\"\nexpect = \"0s\"", None, "rules:3: expect: this is no time");
        check("[[rule]]\nmatch = \"a\"\ngroup = [\"x\"]", None, "rules:3: group: there is no such key");
        check("\n[rule]\nmatch = \"a\"", None, "rules:2: write [[rule]]");
        check("rules = 1", None, "rules:1: rules: there is no such key");
        check("a =", None, "rules:1: this is not TOML");
        check("[[rule]]\nmatch = \"a\"\nperiods = [\"1x\"]", None, "rules:3: periods: \"1x\" is not a period");
        check(
            "[[rule]]\nmatch = \"a\"\nperiods = [\"1m\"]",
            None,
            "rules:3: periods: this cannot differ by source yet",
        );
        check("[[rule]]\nmatch = \"a\"\ntimezone = \"Mars\"", None, "rules:3: timezone: \"Mars\" is not a time zone");
        check("[[rule]]\nmatch = \"a\"\nlateness = \"1m\"", None, "rules:3: lateness: this cannot differ");
        check("[[rule]]\nmatch = \"a\"\nretain = [\"1m=1d\"]", None, "rules:3: retain: this cannot differ");
        let with_table = "groups_file = \"g.csv\"";
        check(with_table, None, "g.csv: the table of groups is missing");
        check("", Some("source,group\n"), "rules: there is a table");
        check(with_table, Some("a,b\n"), "g.csv:1: the first line");
        check(with_table, Some("source,group\nkitchen,group:x\n"), "g.csv:2: group: write \"group:x\" without");
        check(with_table, Some("source,group\nkitchen,x\n,x\n"), "g.csv:3: source is empty");
        check(with_table, Some("source,group\nkitchen\n"), "g.csv:2: this is not CSV");
        let many: String = (0..9).fold(String::new(), |text, i| text + &format!("kitchen,{i}\n"));
        check(with_table, Some(&format!("source,group\n{many}")), "g.csv:10: kitchen is in more than 8");
        let rows = |n: usize| (0..n).fold(String::new(), |text, i| text + &format!("k,{i}\n"));
        let most = format!("{with_table}\n[[rule]]\nmatch = \"k\"\ngroups = [\"a\"]");
        check(&most, Some(&format!("source,group\n{}", rows(8))), "rules: a source could be in 9 groups");
        assert!(written(&most, Some(&format!("source,group\n{}", rows(7)))).parse().is_ok());
    }
}
