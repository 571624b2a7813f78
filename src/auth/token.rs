//! What a token looks like: `mw_`, 43 random letters and digits, `_`, a checksum.
//!
//! Made by `meanwhile token`, read again only by scanners that look for secrets where none should be: the prefix and
//! the checksum let them tell a token from other text. The service knows tokens by their hash alone, and finds one
//! by all of it at once, so that a guess that is nearly right takes as long as any other.

use sha2::{Digest as _, Sha256};
use std::fmt;

const PREFIX: &str = "mw_";
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 62^43 is just more than 2^256.
const RANDOM_DIGITS: usize = 43;
/// 62^6 is more than 2^32.
const CHECK_DIGITS: usize = 6;

/// SHA-256 of a token. 256 random bits need no slow hash: nobody can try them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Digest(pub(super) [u8; 32]);

impl Digest {
    /// Some 100 ns.
    pub(super) fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// Reads 64 hexadecimal digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        let digit = |c: u8| char::from(c).to_digit(16).map(|digit| digit as u8);
        let mut bytes = [0; 32];
        if text.len() != 64 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.chunks(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A new token.
///
/// # Panics
/// If the operating system has no random numbers.
#[must_use]
pub fn generate() -> String {
    let mut token = PREFIX.to_owned();
    while token.len() < PREFIX.len() + RANDOM_DIGITS {
        let mut byte = [0];
        getrandom::fill(&mut byte).expect("the operating system gives random numbers");
        // The rest would make the first digits likelier than the last.
        if byte[0] < 4 * DIGITS.len() as u8 {
            token.push(char::from(DIGITS[usize::from(byte[0]) % DIGITS.len()]));
        }
    }
    let checksum = checksum(&token);
    format!("{token}_{checksum}")
}

/// What is kept of a token.
#[must_use]
pub fn hash(token: &str) -> String {
    Digest::of(token.as_bytes()).to_string()
}

/// A new id of a token or a user: no secret, eight characters.
///
/// # Panics
/// If the operating system has no random numbers.
#[must_use]
pub fn id() -> String {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
    format!("{:08x}", u32::from_be_bytes(bytes))
}

/// Whether a text has the form of a token and its checksum is right: not whether anybody knows it.
#[must_use]
pub fn is_whole(token: &str) -> bool {
    let Some((body, check)) = token.rsplit_once('_') else { return false };
    let Some(digits) = body.strip_prefix(PREFIX) else { return false };
    digits.len() == RANDOM_DIGITS && digits.bytes().all(|c| DIGITS.contains(&c)) && check == checksum(body)
}

/// CRC-32 of what stands before it.
fn checksum(body: &str) -> String {
    let mut rest = crc32fast::hash(body.as_bytes()) as usize;
    let mut digits = [b'0'; CHECK_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[rest % DIGITS.len()];
        rest /= DIGITS.len();
    }
    digits.iter().map(|&digit| char::from(digit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn tokens_are_whole_and_never_the_same() {
        let tokens: HashSet<String> = (0..100).map(|_| generate()).collect();
        assert_eq!(tokens.len(), 100);
        for token in &tokens {
            assert!(is_whole(token), "{token}");
            assert_eq!(token.len(), 53);
        }
    }

    #[test]
    fn a_slip_is_seen() {
        let token = generate();
        for at in 0..token.len() {
            let slip = if &token[at..=at] == "x" { "y" } else { "x" };
            let wrong = format!("{}{slip}{}", &token[..at], &token[at + 1..]);
            assert!(!is_whole(&wrong), "{wrong}");
        }
        for text in ["", "mw_", "mw__", "_", &token[1..], &token[..52], &format!("{token}0")] {
            assert!(!is_whole(text), "{text}");
        }
    }

    #[test]
    fn digests_read_back() {
        let digest = Digest::of(b"abc");
        let text = digest.to_string();
        assert_eq!(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(Digest::parse(&text) == Some(digest));
        assert!(Digest::parse(&text.to_uppercase()) == Some(digest));
        for wrong in ["", &text[1..], &text.replace('b', "g"), &format!("{text}00"), &"é".repeat(32)] {
            assert!(Digest::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn what_a_token_begins_with_is_not_seen_in_its_digest() {
        // Tokens are looked up by this alone: how much of a guess is right makes no difference to how long it takes.
        let token = generate();
        let digest = Digest::of(token.as_bytes());
        for kept in 0..token.len() {
            let guess = Digest::of(format!("{}~", &token[..kept]).as_bytes());
            let common = digest.0.iter().zip(guess.0).take_while(|(a, b)| *a == b).count();
            assert!(common < 4, "{kept}: {common}");
        }
    }
}
