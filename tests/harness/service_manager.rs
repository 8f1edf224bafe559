//! A service manager as the server sees it: the socket that `NOTIFY_SOCKET` names.

use std::os::unix::net::UnixDatagram;
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{DEADLINE, Server};

/// It hears what one server says, in order.
pub struct ServiceManager {
    heard: mpsc::Receiver<String>,
    directory: TempDir,
}

impl ServiceManager {
    /// Hears a server from its next start on. The server is to answer its watchdog within this time.
    pub fn of(server: &mut Server, watchdog: Duration) -> ServiceManager {
        let directory = TempDir::with_prefix("kvlite-notify-").expect("the temporary directory is writable");
        let path = directory.path().join("notify.sock");
        let socket = UnixDatagram::bind(&path).expect("a socket can be bound in an own directory");
        // A server whose words are not read waits with the next ones: here they are read as they come.
        let (sender, heard) = mpsc::channel();
        std::thread::spawn(move || {
            let mut message = [0; 4096];
            while let Ok(bytes) = socket.recv(&mut message) {
                let text = String::from_utf8(message[..bytes].to_vec()).expect("it speaks UTF-8");
                if sender.send(text).is_err() {
                    break;
                }
            }
        });
        server.set_variable("NOTIFY_SOCKET", path);
        server.set_variable("WATCHDOG_USEC", watchdog.as_micros().to_string());
        ServiceManager { heard, directory }
    }

    /// The next thing that the server says: lines.
    pub fn hear(&self) -> String {
        self.heard.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("nothing is heard for {DEADLINE:?}"))
    }

    /// What the server says up to the first message that has this in it, and that message.
    pub fn hear_until(&self, wanted: &str) -> Vec<String> {
        let mut heard = Vec::new();
        while heard.last().is_none_or(|last: &String| !last.contains(wanted)) {
            heard.push(self.hear());
            assert!(heard.len() < 10_000, "{wanted} is not said: {:?}", &heard[..100]);
        }
        heard
    }
}
