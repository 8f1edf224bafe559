//! The kvlite program: `bench`, or else the server. Options in, exit status out.

use kvlite::bench;
use kvlite::config::Config;

fn main() {
    if std::env::args_os().nth(1).is_some_and(|first| first == "bench") {
        std::process::exit(bench::main(std::env::args_os().skip(1)));
    }
    let config = Config::from_process();
    kvlite::logging::init(&config);
    if let Err(failure) = kvlite::run(config) {
        tracing::error!("{failure}");
        std::process::exit(failure.exit_status());
    }
}
