//! What a channel will probably carry, by the command that opens it. A hint and no more: a shell
//! on the target reads the command, and it may run anything. `scp -t x; bash` is no scp.

/// How long a command is looked at.
const LONGEST: usize = 64 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgramHint {
    Sftp,
    Scp {
        role: ScpRole,
        recursive: bool,
        path: Vec<u8>,
    },
    Rsync {
        /// The target sends.
        sender: bool,
        /// As far as the command names them: from protocol 32 on they may come in the stream.
        paths: Vec<Vec<u8>>,
    },
    Git {
        service: GitService,
        repository: Vec<u8>,
    },
    Other,
}

/// What the target does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScpRole {
    /// `scp -f`: sends.
    Source,
    /// `scp -t`: receives.
    Sink,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GitService {
    /// Fetches and clones.
    UploadPack,
    /// Pushes.
    ReceivePack,
    UploadArchive,
}

impl ProgramHint {
    /// Of the command of an `exec` request.
    pub fn of(command: &[u8]) -> Self {
        let Some(words) = command.get(..LONGEST.min(command.len())).and_then(words) else {
            return Self::Other;
        };
        let mut words = words.as_slice();
        while let [first, rest @ ..] = words
            && matches!(base_name(first), b"sudo" | b"doas" | b"exec" | b"command" | b"nice")
        {
            words = rest;
            // `sudo -n`, as scripts have it. What other options take as an argument is not known here.
            while let [option, rest @ ..] = words
                && option.starts_with(b"-")
            {
                if option != b"-n" || first.ends_with(b"nice") {
                    return Self::Other;
                }
                words = rest;
            }
        }
        let [program, arguments @ ..] = words else { return Self::Other };
        match base_name(program) {
            b"sftp-server" | b"internal-sftp" => Self::Sftp,
            b"scp" => scp(arguments),
            b"rsync" => rsync(arguments),
            b"git" => match arguments {
                [service, arguments @ ..] => git(&[b"git-", service.as_slice()].concat(), arguments),
                [] => Self::Other,
            },
            name => git(name, arguments),
        }
    }

    /// Of the name of a `subsystem` request.
    pub fn of_subsystem(name: &[u8]) -> Self {
        if name == b"sftp" { Self::Sftp } else { Self::Other }
    }
}

fn base_name(program: &[u8]) -> &[u8] {
    program.rsplit(|byte| *byte == b'/').next().unwrap_or(program)
}

fn scp(arguments: &[Vec<u8>]) -> ProgramHint {
    let (options, path) = divided(arguments);
    let has = |letter| options.iter().any(|option| option.contains(letter));
    let role = match (has(&b'f'), has(&b't')) {
        (true, false) => ScpRole::Source,
        (false, true) => ScpRole::Sink,
        _ => return ProgramHint::Other,
    };
    let path = path.join(&b' ');
    ProgramHint::Scp { role, recursive: has(&b'r'), path }
}

/// Only what `rsync` itself runs on the other side: `rsync --server [--sender] -options . path…`.
fn rsync(arguments: &[Vec<u8>]) -> ProgramHint {
    let (options, paths) = divided(arguments);
    let has = |name: &[u8]| options.iter().any(|option| option.as_slice() == name);
    if !has(b"--server") {
        return ProgramHint::Other;
    }
    // The first one is always `.`.
    ProgramHint::Rsync { sender: has(b"--sender"), paths: paths.get(1..).unwrap_or_default().to_vec() }
}

fn git(program: &[u8], arguments: &[Vec<u8>]) -> ProgramHint {
    let service = match program {
        b"git-upload-pack" => GitService::UploadPack,
        b"git-receive-pack" => GitService::ReceivePack,
        b"git-upload-archive" => GitService::UploadArchive,
        _ => return ProgramHint::Other,
    };
    let (_, paths) = divided(arguments);
    let [repository] = paths else { return ProgramHint::Other };
    ProgramHint::Git { service, repository: repository.clone() }
}

/// Options, then what follows them.
fn divided(arguments: &[Vec<u8>]) -> (&[Vec<u8>], &[Vec<u8>]) {
    let first = arguments.iter().position(|word| !word.starts_with(b"-") || word == b"--");
    let (options, rest) = arguments.split_at_checked(first.unwrap_or(arguments.len())).unwrap_or_default();
    match rest {
        [dashes, rest @ ..] if dashes == b"--" => (options, rest),
        rest => (options, rest),
    }
}

/// The words of a command, as a POSIX shell divides them. `None` where it would run more than one
/// program, redirect, or put something else in: then the first word says too little.
fn words(command: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<Vec<u8>>, None);
    let mut bytes = command.iter().copied();
    while let Some(byte) = bytes.next() {
        match (quote, byte) {
            (Some(b'\''), b'\'') | (Some(b'"'), b'"') => quote = None,
            (Some(b'"') | None, b'$' | b'`')
            | (None, b';' | b'&' | b'|' | b'<' | b'>' | b'(' | b')' | b'\n' | b'\r' | b'\0') => return None,
            (Some(b'"') | None, b'\\') => word.get_or_insert_default().push(bytes.next()?),
            (None, b'\'' | b'"') => {
                word.get_or_insert_default();
                quote = Some(byte);
            }
            (None, b' ' | b'\t') => words.extend(word.take()),
            (_, byte) => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scp(role: ScpRole, recursive: bool, path: &str) -> ProgramHint {
        ProgramHint::Scp { role, recursive, path: path.into() }
    }

    #[test]
    fn commands_that_clients_send_are_recognised() {
        let rsync = |sender, paths: &[&str]| ProgramHint::Rsync {
            sender,
            paths: paths.iter().map(|path| path.as_bytes().to_vec()).collect(),
        };
        let git = |service, repository: &str| ProgramHint::Git { service, repository: repository.into() };
        for (command, hint) in [
            ("/usr/lib/openssh/sftp-server", ProgramHint::Sftp),
            ("sudo -n /usr/libexec/sftp-server -l INFO", ProgramHint::Sftp),
            ("scp -t /tmp/x", scp(ScpRole::Sink, false, "/tmp/x")),
            ("scp -v -r -p -d -t -- '/tmp/a b'", scp(ScpRole::Sink, true, "/tmp/a b")),
            ("/usr/bin/scp -rf *.log", scp(ScpRole::Source, true, "*.log")),
            ("rsync --server -vlogDtpre.iLsfxCIvu . /srv/a\\ b", rsync(false, &["/srv/a b"])),
            ("sudo rsync --server --sender -re.iLsfxCIvu . a b", rsync(true, &["a", "b"])),
            ("git-upload-pack '/srv/a.git'", git(GitService::UploadPack, "/srv/a.git")),
            ("git receive-pack 'b.git'", git(GitService::ReceivePack, "b.git")),
        ] {
            assert_eq!(ProgramHint::of(command.as_bytes()), hint, "{command}");
        }
        assert_eq!(ProgramHint::of_subsystem(b"sftp"), ProgramHint::Sftp);
        assert_eq!(ProgramHint::of_subsystem(b"netconf"), ProgramHint::Other);
    }

    #[test]
    fn a_command_that_runs_more_is_no_hint() {
        for command in [
            "scp -t x; bash",
            "scp -t x & bash",
            "scp -t x\nbash",
            "scp -t $(bash >&2)",
            "scp -t \"`bash`\"",
            "scp -t x | tee y",
            "bash -c 'scp -t x'",
            "scp -t 'x",
            "scp x y",
            "rsync -a x y",
            "git log",
            "",
        ] {
            assert_eq!(ProgramHint::of(command.as_bytes()), ProgramHint::Other, "{command}");
        }
    }

    proptest! {
        #[test]
        fn any_command_is_read(command in prop::collection::vec(any::<u8>(), 0..200)) {
            ProgramHint::of(&command);
        }

        #[test]
        fn a_quoted_path_is_read_as_it_is(path in "[^'\0]{0,30}") {
            let hint = ProgramHint::of(format!("scp -t -- '{path}'").as_bytes());
            prop_assert_eq!(hint, scp(ScpRole::Sink, false, &path));
        }
    }
}
