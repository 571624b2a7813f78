//! How the service appears to browsers and proxies: below which path, and to pages of which other origins.
//!
//! Made by `config.rs` of `--base-path` and `--cors-origins`; carried out in `http/`.

use std::str::FromStr;

/// How the service appears.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Web {
    /// Begins with a slash and does not end with one; `None`: all paths are its own.
    pub base_path: Option<String>,
    pub origins: Origins,
    /// Whether clients reach it by https itself, and not through a proxy.
    pub encrypted: bool,
}

/// Pages of which other origins may ask the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    #[default]
    None,
    /// As browsers write them: `https://HOST` or `https://HOST:PORT`.
    Listed(Vec<String>),
    Any,
}

impl FromStr for Origins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
        match *words {
            [] => Ok(Self::None),
            ["*"] => Ok(Self::Any),
            _ => words.into_iter().map(origin).collect::<Result<_, _>>().map(Self::Listed),
        }
    }
}

fn origin(word: &str) -> Result<String, String> {
    let wrong =
        || format!("\"{word}\" is no origin: write https://HOST, http://HOST:PORT, several with commas, or * alone");
    let (scheme, host) = word.split_once("://").ok_or_else(wrong)?;
    let of_a_host = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    if !matches!(scheme, "http" | "https") || host.is_empty() || !host.chars().all(of_a_host) {
        return Err(wrong());
    }
    Ok(word.to_ascii_lowercase())
}

/// Reads a path below which all others lie.
pub(super) fn base_path(path: &str) -> Result<Option<String>, String> {
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(None);
    }
    let of_a_path = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    let is_segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.chars().all(of_a_path);
    match path.strip_prefix('/') {
        Some(segments) if segments.split('/').all(is_segment) => Ok(Some(path.to_owned())),
        _ => Err(format!("\"{path}\" is no path: write /server1 or /means/server1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let check = |path: &str, expected: Option<Option<&str>>| {
            assert_eq!(base_path(path).ok(), expected.map(|path| path.map(str::to_owned)), "{path}");
        };
        check("", Some(None));
        check("/", Some(None));
        check("/server1", Some(Some("/server1")));
        check("/means/server-1/", Some(Some("/means/server-1")));
        for path in ["server1", "//", "/a//b", "/a/../b", "/{a}", "/a b", "/a?b", "/%61"] {
            check(path, None);
        }
    }

    #[test]
    fn lists_of_origins() {
        let check = |text: &str, expected: Option<Origins>| assert_eq!(text.parse().ok(), expected, "{text}");
        let listed =
            |origins: &[&str]| Some(Origins::Listed(origins.iter().map(|&origin| origin.to_owned()).collect()));
        check("", Some(Origins::None));
        check("*", Some(Origins::Any));
        check("https://App.example, http://localhost:3000", listed(&["https://app.example", "http://localhost:3000"]));
        for text in
            ["app.example", "https://", "https://app.example/", "https://*.example", "https://a,*", "null", "ftp://a"]
        {
            check(text, None);
        }
    }
}
