//! RDS IAM: a real server that asks PAM, as RDS does, and PAM has Amazon's own Python library make the token anew.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use super::support::Bastion;
use super::support::amazon::{REGION, python};
use super::support::process::pause_for;
use super::{USER, assert_nowhere, grant, last, options, revoke, select, shared_user, target};

/// A PAM service of the test's own, which asks `program`.
struct Service {
    name: String,
    path: PathBuf,
}

impl Service {
    /// What the machine lacks, where there can be none.
    fn new(program: &Path) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root may add a PAM service".to_owned());
        }
        let name = format!("sallyport-test-{}", std::process::id());
        let path = Path::new("/etc/pam.d").join(&name);
        let rules = format!(
            "auth required pam_exec.so expose_authtok quiet {}\naccount required pam_permit.so\n",
            program.display()
        );
        fs::write(&path, rules).map_err(|error| error.to_string())?;
        Ok(Self { name, path })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.path);
    }
}

/// What PAM asks: hands the token to the test, which is who may run botocore, and does as it says.
fn checker(directory: &Path) -> PathBuf {
    let path = directory.join("check-token");
    let script = format!(
        "#!/bin/sh\ncd {}\nrm -f answer\ntr -d '\\0' >asking\nprintf '\\n%s\\n' \"$PAM_USER\" >>asking\nmv asking asked\n\
         while [ ! -s answer ]; do sleep 0.05; done\nexit $(cat answer)\n",
        directory.display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
    path
}

/// Answers whoever asks: yes to a token that botocore makes in the same way at the token's own time. Keeps the tokens.
struct Iam {
    tokens: Arc<Mutex<Vec<String>>>,
}

impl Iam {
    fn at(directory: &Path, port: u16) -> Self {
        let tokens: Arc<Mutex<Vec<String>>> = Arc::default();
        let (ours, asked, directory) = (tokens.clone(), directory.join("asked"), directory.to_owned());
        // Ends with the process.
        std::thread::spawn(move || {
            loop {
                pause_for(Duration::from_millis(20));
                let Ok(text) = fs::read_to_string(&asked) else { continue };
                fs::remove_file(&asked).unwrap();
                let (token, user) = text.trim_end().split_once('\n').unwrap();
                let answer = if is_botocores(token, user, port) { "0" } else { "1" };
                ours.lock().unwrap().push(token.to_owned());
                fs::write(directory.join("answering"), answer).unwrap();
                fs::rename(directory.join("answering"), directory.join("answer")).unwrap();
            }
        });
        Self { tokens }
    }

    fn tokens(&self) -> Vec<String> {
        self.tokens.lock().unwrap().clone()
    }
}

fn is_botocores(token: &str, user: &str, port: u16) -> bool {
    let script = format!(
        "import datetime, sys, urllib.parse\nimport botocore.auth, botocore.model, botocore.session, botocore.signers\n\
         fields = lambda url: dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))\n\
         token = fields('https://' + sys.argv[1])\n\
         at = datetime.datetime.strptime(token['X-Amz-Date'], '%Y%m%dT%H%M%SZ')\n\
         botocore.auth.get_current_datetime = lambda *a, **k: at\n\
         session = botocore.session.get_session()\nsession.set_credentials('test', 'test')\n\
         signer = botocore.signers.RequestSigner(botocore.model.ServiceId('rds'), '{REGION}', 'rds-db', 'v4', \
         session.get_credentials(), session.get_component('event_emitter'))\n\
         url = 'https://localhost:{port}/?Action=connect&DBUser=' + sys.argv[2]\n\
         request = dict(method='GET', url=url, body=dict(), headers=dict(), context=dict())\n\
         made = signer.generate_presigned_url(request, operation_name='connect', region_name='{REGION}', \
         expires_in=int(token['X-Amz-Expires']), signing_name='rds-db')\n\
         sys.exit(0 if fields(made) == token else str((fields(made), token)))\n"
    );
    let mut command = Command::new(python("python"));
    let output = command.args(["-c", &script, token, user]).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    output.status.success()
}

#[test]
fn a_token_for_each_connection_opens_a_server_that_asks_iam() {
    let postgres = shared_user();
    let directory = tempfile::tempdir().unwrap();
    let iam = Iam::at(directory.path(), postgres.port);
    let service = match Service::new(&checker(directory.path())) {
        Ok(service) => service,
        Err(lacks) => {
            eprintln!("skipped: {lacks}");
            return;
        }
    };
    postgres.admit(&format!(
        "hostssl all {USER} 127.0.0.1/32 pam pamservice={}\nhostssl all sallyport_admin,all 127.0.0.1/32 scram-sha-256",
        service.name
    ));
    let credential = ["kind = \"rds-iam\"".to_owned(), format!("region = \"{REGION}\"")];
    let bastion = Bastion::start_with(&postgres, options(target(&postgres, USER, &credential)));
    let session = grant(&bastion);
    assert_eq!(select(&bastion).success().stdout, format!("{USER}|100\n"));
    bastion.advance(2);
    select(&bastion).success();
    let tokens = iam.tokens();
    assert_eq!(tokens.len(), 2, "{tokens:?}");
    assert_ne!(tokens[0], tokens[1], "each connection has its own");
    assert!(tokens[0].contains("X-Amz-Expires=900"), "{}", tokens[0]);
    assert_nowhere(&bastion, tokens[0].rsplit_once("X-Amz-Signature=").unwrap().1);

    // Towards the session's end a token lives no longer than it.
    bastion.advance(3600 - 120);
    select(&bastion).success();
    let last_token = iam.tokens().pop().unwrap();
    let expires = last_token.split("X-Amz-Expires=").nth(1).unwrap().split('&').next().unwrap();
    assert!(expires.parse::<u64>().unwrap() <= 120, "{expires}");

    revoke(&bastion, &session).success();
    assert_eq!(last(&bastion, "credential_destroyed")["detail"]["how"], json!("expires"));
    select(&bastion).failure();
}

#[test]
fn a_token_is_sent_to_nobody_who_does_not_prove_who_it_is() {
    let postgres = shared_user();
    // Without PAM the server asks for a proof, which a token is not.
    let credential = ["kind = \"rds-iam\"".to_owned(), format!("region = \"{REGION}\"")];
    let bastion = Bastion::start_with(&postgres, options(target(&postgres, USER, &credential)));
    grant(&bastion);
    select(&bastion).failure();
    let mut other = Bastion::prepare(&postgres, options(String::new()));
    let broken = target(&postgres, USER, &credential)
        .replace(&postgres.ca_file().display().to_string(), &other.ca_file().display().to_string());
    other.set_targets(&broken);
    other.boot();
    other.log_in("alice").success();
    grant(&other);
    let refused = select(&other).failure();
    assert!(refused.stderr.contains("does not prove who it is"), "{}", refused.stderr);
}
