//! Passwords of people: how they are kept and compared.
//!
//! Used by `auth.rs` and, to make an entry, by the commands. A password is short and may be guessed, so that it has to
//! cost something to try one: Argon2id, with a salt for each. Comparing takes some 15 ms of a core and `MEMORY_KIB` of
//! memory; who asks often is remembered for a while instead (`auth.rs`).

use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use argon2::{Algorithm, Argon2, Params, Version};

/// What trying one password takes up: with two passes, the least that OWASP recommends today.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
/// One thread per attempt: other requests are served meanwhile.
const LANES: u32 = 1;
/// For the salt: it only has to be another one each time.
const SALT_BYTES: usize = 16;
/// A password that is shorter is tried out, whatever it costs.
pub const MIN_CHARS: usize = 8;
/// Longer than anybody types; it is hashed, so this bounds only what is read.
pub const MAX_BYTES: usize = 1_024;

fn argon2() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("parameters that Argon2 allows");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// What is kept of a password: algorithm, parameters, salt and hash in one text.
///
/// # Errors
/// If it is too short or too long.
///
/// # Panics
/// If the operating system has no random numbers.
pub fn hash(password: &str) -> Result<String, String> {
    if password.chars().count() < MIN_CHARS || password.len() > MAX_BYTES {
        return Err(format!("a password has at least {MIN_CHARS} characters and at most {MAX_BYTES} bytes"));
    }
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt).expect("the operating system gives random numbers");
    let hashed: PasswordHash =
        argon2().hash_password_with_salt(password.as_bytes(), &salt).map_err(|error| error.to_string())?;
    Ok(hashed.to_string())
}

/// Whether this is the password. The parameters are those it was hashed with.
pub(super) fn matches(password: &str, hash: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| argon2().verify_password(password.as_bytes(), &hash).is_ok())
}

/// Why a text is no hash of a password.
pub(super) fn check(hash: &str) -> Result<(), String> {
    let parsed = PasswordHash::new(hash).map_err(|_| "it is not a hash as `meanwhile token` writes them".to_owned())?;
    let params = Params::try_from(&parsed).map_err(|_| "its parameters are not those of Argon2".to_owned())?;
    // Whoever may write the file may not stop the service by it.
    if params.m_cost() > 16 * MEMORY_KIB || params.t_cost() > 16 * PASSES {
        return Err("its parameters would make every attempt take too long".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_its_hash_and_no_other() {
        let hashed = hash("correct horse").unwrap();
        assert!(hashed.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hashed}");
        assert!(!hashed.contains("horse"));
        assert!(matches("correct horse", &hashed));
        assert!(!matches("correct horsf", &hashed) && !matches("", &hashed));
        assert_ne!(hash("correct horse").unwrap(), hashed, "another salt");
        assert_eq!(check(&hashed), Ok(()));
    }

    #[test]
    fn what_is_no_password_and_no_hash() {
        assert!(hash("1234567").unwrap_err().contains("at least 8"));
        assert!(hash("üüüüüüüü").is_ok());
        assert!(hash(&"x".repeat(MAX_BYTES + 1)).is_err());
        for text in ["", "secret", "$argon2id$", "$2y$10$abcdefghijklmnopqrstuv"] {
            assert!(check(text).is_err(), "{text}");
            assert!(!matches("secret", text));
        }
        let hashed = hash("correct horse").unwrap();
        assert!(check(&hashed.replace("m=19456", "m=4000000")).unwrap_err().contains("too long"));
        assert!(check(&hashed.replace("t=2", "t=1000")).is_err());
    }
}
