//! Listens before an emulator of AWS: keeps what is asked of it, and answers in its place where a test says so.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::amazon::{Emulator, pass, read_request};

/// What is answered in the emulator's place; `None`: its own answer.
type Answer = dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync;

#[derive(Debug)]
pub struct Tap {
    pub port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tap {
    pub fn before(
        emulator: &Emulator,
        answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, behind) = (Arc::default(), emulator.port);
        let (kept, answer): (Arc<Mutex<Vec<String>>>, Arc<Answer>) = (Arc::clone(&asked), Arc::new(answer));
        // Ends with the process.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                std::thread::spawn(move || serve(client, behind, &kept, &*answer));
            }
        });
        Self { port, asked }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The bodies of the calls of one operation, in order.
    pub fn calls(&self, operation: &str) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|body| is_call(body, operation)).cloned().collect()
    }
}

/// Whether a form names the operation.
pub fn is_call(body: &str, operation: &str) -> bool {
    body.split('&').any(|field| field.strip_prefix("Action=") == Some(operation))
}

/// One field of a form, decoded.
pub fn field(body: &str, name: &str) -> Option<String> {
    let url = reqwest::Url::parse(&format!("http://x/?{body}")).unwrap();
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// As AWS refuses a call of its query protocol.
pub fn refused(code: &str, message: &str) -> Vec<u8> {
    let body = format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>\
         <RequestId>x</RequestId></ErrorResponse>"
    );
    format!(
        "HTTP/1.1 403 Forbidden\r\ncontent-type: text/xml\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn serve(mut client: TcpStream, behind: u16, kept: &Mutex<Vec<String>>, answer: &Answer) {
    let Some(request) = read_request(&client) else { return };
    let body = String::from_utf8_lossy(&request.body).into_owned();
    let own = answer(&body);
    kept.lock().unwrap().push(body);
    if let Some(answer) = own.or_else(|| pass(&request, &request.body, behind)) {
        let _ = client.write_all(&answer);
    }
}
