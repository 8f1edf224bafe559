//! The kvlite server: options in, exit status out.

use kvlite::config::Config;

fn main() {
    let config = Config::from_process();
    kvlite::logging::init(&config);
    if let Err(failure) = kvlite::run(config) {
        tracing::error!("{failure}");
        std::process::exit(failure.exit_status());
    }
}
