//! One-time codes (RFC 6238): six digits, half a minute, SHA-1, as every app knows them; and recovery codes.

use sha2::{Digest as _, Sha256};
use totp_rs::{Builder, Secret, Totp};

use fw_proto::Timestamp;

/// Codes of one step before and after are taken as well: phones' clocks are off.
const SKEW: u16 = 1;

/// Recovery codes at a time.
const RECOVERY: usize = 10;

/// The letters of recovery codes: none looks like another (Crockford's base 32).
const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A new secret, in base 32 as people type it.
pub(crate) fn generate() -> String {
    Secret::from(rand::random::<[u8; 20]>()).to_base32()
}

/// What an app reads from a picture.
pub(crate) fn address(secret: &str, name: &str) -> Option<String> {
    let builder = builder(secret)?.with_account_name(name).with_issuer(Some("Fleetwright"));
    builder.build().ok()?.to_url().ok()
}

/// The step whose code this is; `None` when it is wrong.
pub(crate) fn step(secret: &str, code: &str, now: Timestamp) -> Option<u64> {
    let code: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    let well_formed = code.len() == 6 && code.bytes().all(|b| b.is_ascii_digit());
    let seconds = u64::try_from(now.as_millis() / 1000).ok()?;
    totp(secret)?.check(&code, seconds).filter(|_| well_formed)
}

fn totp(secret: &str) -> Option<Totp> {
    builder(secret)?.with_account_name("-").with_issuer(Some("-")).build().ok()
}

fn builder(secret: &str) -> Option<Builder> {
    Some(Builder::new().with_secret(Secret::try_from_base32(secret).ok()?).with_skew(SKEW))
}

/// New recovery codes.
pub(crate) fn recovery_codes() -> Vec<String> {
    (0..RECOVERY).map(|_| recovery_code()).collect()
}

/// 80 random bits, in groups that can be read out.
fn recovery_code() -> String {
    let letters: String = rand::random::<[u8; 16]>()
        .iter()
        .filter_map(|byte| LETTERS.get(usize::from(byte % 32)).copied().map(char::from))
        .collect();
    let groups: Vec<_> = letters
        .as_bytes()
        .chunks(4)
        .map(|group| String::from_utf8_lossy(group).into_owned())
        .collect();
    groups.join("-")
}

/// What the store keeps of a recovery code, however it was typed; `None` when it cannot be one.
pub(crate) fn recovery_hash(code: &str) -> Option<[u8; 32]> {
    let code: String =
        code.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    (code.len() == 16).then(|| Sha256::digest(code).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B, the last six of its eight digits.
    #[test]
    fn codes_are_those_of_the_standard() {
        let secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
        for (seconds, code) in
            [(59, "287082"), (1_111_111_109, "081804"), (20_000_000_000, "353130")]
        {
            let now = Timestamp::from_millis(seconds * 1000);
            let own = u64::try_from(seconds).unwrap() / 30;
            assert_eq!(step(secret, code, now), Some(own));
            assert_eq!(step(secret, &format!("{} {}", &code[..3], &code[3..]), now), Some(own));
            let later = Timestamp::from_millis((seconds + 90) * 1000);
            assert_eq!(step(secret, code, later), None);
        }
        for bad in ["", "28708", "2870822", "abcdef", "２８７０８２"] {
            assert_eq!(step(secret, bad, Timestamp::from_millis(59_000)), None, "{bad}");
        }
    }

    #[test]
    fn an_app_can_read_the_address() {
        let secret = generate();
        assert_eq!(secret.len(), 32);
        let address = address(&secret, "alice").unwrap();
        assert!(address.starts_with("otpauth://totp/Fleetwright:alice?"), "{address}");
        assert!(address.contains(&secret), "{address}");
    }

    #[test]
    fn recovery_codes_are_taken_however_they_are_typed() {
        let codes = recovery_codes();
        assert_eq!(codes.len(), RECOVERY);
        let [first, ..] = codes.as_slice() else { panic!("there are ten") };
        assert_eq!(first.len(), 19);
        assert_eq!(recovery_hash(first), recovery_hash(&first.replace('-', " ").to_uppercase()));
        assert_eq!(recovery_hash("1234"), None);
    }
}
