//! Recognising a line that asks for a secret.

/// Anywhere in the line.
const WORDS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "pass phrase",
    "passcode",
    "token",
    "secret",
    "verification code",
    "security code",
    "authentication code",
    "one-time",
    "api key",
    "access key",
    "credential",
    "passwort",
    "kennwort",
    "mot de passe",
    "contraseña",
    "clave",
    "parola",
    "senha",
    "wachtwoord",
    "hasło",
    "heslo",
    "jelszó",
    "lösenord",
    "adgangskode",
    "passord",
    "salasana",
    "şifre",
    "пароль",
    "密码",
    "密碼",
    "パスワード",
    "비밀번호",
    "암호",
];
/// As words of their own: `shipping:` asks for nothing.
const SHORT_WORDS: &[&str] = &["pin", "otp", "pwd", "puk", "code"];
/// How the line may end, spaces apart; the third is the full-width colon.
const ENDS: [char; 4] = [':', '?', '\u{ff1a}', '\u{ff1f}'];

/// Where in a line the words begin that make it ask for a secret.
pub(super) fn asks_for_secret(line: &str) -> Option<usize> {
    let line = line.trim_end();
    if !line.ends_with(ENDS) {
        return None;
    }
    let lower = line.to_lowercase();
    let word = WORDS.iter().filter_map(|word| lower.rfind(word)).max();
    let short = SHORT_WORDS.iter().filter_map(|word| rfind_alone(&lower, word)).max();
    // Lower case may be longer or shorter than what it was made of.
    word.max(short).map(|at| at.min(line.len()))
}

fn rfind_alone(line: &str, word: &str) -> Option<usize> {
    let alone = |at: usize| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|after| after.chars().next());
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
    };
    line.rmatch_indices(word).map(|(at, _)| at).find(|at| alone(*at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_that_ask_for_a_secret_are_recognised() {
        for line in [
            "Password:",
            "Password: ",
            "[sudo] password for bob: ",
            "bob@web-1's password: ",
            "Enter passphrase for key '/home/bob/.ssh/id_ed25519': ",
            "Enter PEM pass phrase:",
            "(current) UNIX password: ",
            "Password for 'https://bob@example.org': ",
            "Verification code: ",
            "One-time password (OATH) for `bob': ",
            "Duo passcode or option (1-3): ",
            "Enter PIN for 'Token': ",
            "Vault token (will be hidden): ",
            "OTP:",
            "Secret?",
            "Passwort: ",
            "Mot de passe : ",
            "Contraseña: ",
            "CONTRASEÑA: ",
            "Parola: ",
            "Senha: ",
            "[sudo] wachtwoord voor bob: ",
            "Hasło: ",
            "Пароль: ",
            "密码：",
        ] {
            assert!(asks_for_secret(line).is_some(), "{line}");
        }
    }

    #[test]
    fn other_lines_are_not() {
        for line in [
            "",
            ":",
            "$ ",
            "bob@web-1:~$ ",
            "bob@token-3:/etc/secret$ ",
            "password-1# ",
            "login: ",
            "Password changed.",
            "shipping: ",
            "Hotplug: ",
            "the password is stored",
            "Do you want to continue? [Y/n] ",
        ] {
            assert_eq!(asks_for_secret(line), None, "{line}");
        }
    }
}
