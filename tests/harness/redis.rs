//! The real Redis, where it is installed: a process of the test's own on loopback, without files.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::client::Resp;
use crate::process::{Log, free_port, within_deadline};

/// A running `redis-server`. It ends with its test.
pub struct Redis {
    /// Where it listens, on loopback.
    pub port: u16,
    child: Child,
    _directory: TempDir,
}

impl Redis {
    /// `None`, said on standard error with what therefore does not happen, where it is not installed.
    pub fn start(skipped: &str, options: &[&str]) -> Option<Redis> {
        let Some(program) = installed("redis-server") else {
            eprintln!("SKIPPED: redis-server is not installed, so {skipped}");
            return None;
        };
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        let port = free_port();
        let child = Command::new(program)
            .args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string(), "--dir"])
            .arg(directory.path())
            .args(options)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server can be run");
        let redis = Redis { port, child, _directory: directory };
        assert!(within_deadline(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()));
        Some(redis)
    }

    /// A new connection.
    pub fn resp(&self) -> Resp {
        Resp::connect(([127, 0, 0, 1], self.port).into(), &Log::elsewhere())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The path of a program that is installed.
fn installed(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).map(|path| path.join(program)).find(|path| path.is_file())
}
