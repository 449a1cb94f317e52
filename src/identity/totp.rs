//! Time-based one-time codes (RFC 6238): SHA-1, 30 seconds, six digits, as every authenticator has
//! them. A code is accepted one step early and one step late, for clocks that differ, and once.

use data_encoding::BASE32_NOPAD;

use crate::crypto;
use crate::domain::name::UserName;
use crate::domain::secret::Secret;
use crate::domain::ssh_key::SecondFactor;
use crate::domain::time::Timestamp;

const STEP_MICROS: i64 = 30_000_000;
const MODULUS: u32 = 1_000_000;
/// How many steps before and after the present one.
const TOLERANCE: u64 = 1;

/// A second factor that nobody has yet (RFC 4226 section 4: as long as the hash).
pub fn generate() -> SecondFactor {
    SecondFactor { secret: Secret::new(crypto::random()), last_step: 0 }
}

/// The secret for typing into an authenticator.
pub fn base32(factor: &SecondFactor) -> Secret<String> {
    Secret::new(BASE32_NOPAD.encode(factor.secret.expose()))
}

/// The secret as a link that authenticators read, mostly as a QR code.
pub fn uri(factor: &SecondFactor, user: &UserName) -> Secret<String> {
    let secret = base32(factor);
    Secret::new(format!(
        "otpauth://totp/Sallyport:{user}?secret={}&issuer=Sallyport&algorithm=SHA1&digits=6&period=30",
        secret.expose()
    ))
}

/// The step whose code this is, if it is one that is acceptable now and was not used up.
pub fn acceptable_step(factor: &SecondFactor, code: &str, now: Timestamp) -> Option<u64> {
    let typed: String = code.chars().filter(|symbol| !symbol.is_whitespace()).take(7).collect();
    let present = step(now);
    let candidates = present.saturating_sub(TOLERANCE)..=present.saturating_add(TOLERANCE);
    // All are computed, whichever fits: how long it takes tells nothing.
    let fitting = candidates.filter(|step| {
        let expected = code_of(factor, *step);
        crypto::equal(expected.expose().as_bytes(), typed.as_bytes())
    });
    fitting.filter(|step| *step > factor.last_step).max()
}

fn step(now: Timestamp) -> u64 {
    u64::try_from(now.as_micros() / STEP_MICROS).unwrap_or(0)
}

/// RFC 4226 section 5.3.
fn code_of(factor: &SecondFactor, step: u64) -> Secret<String> {
    let hash = crypto::hmac_sha1(factor.secret.expose(), &step.to_be_bytes());
    let offset = usize::from(hash.last().copied().unwrap_or(0) & 0xf);
    let word = hash.get(offset..).and_then(|rest| rest.first_chunk::<4>()).copied().unwrap_or_default();
    let number = u32::from_be_bytes(word) & 0x7fff_ffff;
    Secret::new(format!("{:06}", number % MODULUS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_the_rfc() -> SecondFactor {
        SecondFactor { secret: Secret::new(*b"12345678901234567890"), last_step: 0 }
    }

    fn second(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    #[test]
    fn codes_are_those_of_rfc_6238() {
        // Appendix B, the last six of its eight digits.
        for (at, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(code_of(&of_the_rfc(), step(second(at))).expose(), code, "{at}");
            assert_eq!(acceptable_step(&of_the_rfc(), code, second(at)), Some(step(second(at))), "{at}");
        }
    }

    #[test]
    fn a_code_is_acceptable_one_step_early_and_late() {
        let (factor, code, step) = (of_the_rfc(), "005924", 1_234_567_890 / 30);
        for (at, acceptable) in [
            (1_234_567_829, false),
            (1_234_567_859, false),
            (1_234_567_860, true),
            (1_234_567_890, true),
            (1_234_567_949, true),
            (1_234_567_950, false),
        ] {
            let found = acceptable_step(&factor, code, second(at));
            assert_eq!(found, acceptable.then_some(step), "{at}");
        }
    }

    #[test]
    fn a_code_that_was_used_and_those_before_it_are_not_acceptable() {
        let now = second(1_234_567_890);
        let mut factor = of_the_rfc();
        let earlier = code_of(&factor, step(now) - 1);
        let later = code_of(&factor, step(now) + 1);
        factor.last_step = step(now);
        assert_eq!(acceptable_step(&factor, "005924", now), None);
        assert_eq!(acceptable_step(&factor, earlier.expose(), now), None);
        assert_eq!(acceptable_step(&factor, later.expose(), now), Some(step(now) + 1));
    }

    #[test]
    fn what_is_no_code_is_none() {
        let now = second(1_234_567_890);
        for code in ["", "5924", "0059240", "00592４", "005925", &"005924".repeat(1_000)] {
            assert_eq!(acceptable_step(&of_the_rfc(), code, now), None, "{code:.20}");
        }
        assert!(acceptable_step(&of_the_rfc(), " 005 924\n", now).is_some(), "as it is shown");
    }

    #[test]
    fn an_authenticator_is_told_the_secret_and_nobody_else() {
        let factor = of_the_rfc();
        let link = uri(&factor, &"alice".parse().unwrap());
        assert_eq!(
            link.expose(),
            "otpauth://totp/Sallyport:alice?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\
             &issuer=Sallyport&algorithm=SHA1&digits=6&period=30"
        );
        let printed = format!("{factor:?} {link:?}");
        assert!(!printed.contains("GEZDG") && !printed.contains("49"), "{printed}");
        assert_ne!(generate().secret.expose(), generate().secret.expose());
    }
}
