//! The kvlite program: a tool or the load generator if the first argument names one, else the server. Options
//! in, exit status out.

use kvlite::config::Config;
use kvlite::failure::Failure;
use kvlite::tools::Tool;
use kvlite::{bench, logging};
use tikv_jemallocator::Jemalloc;

/// Memory that was freed goes back to the system a second later; `.cargo/config.toml` has the settings.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() {
    if let Some(tool) = Tool::from_process() {
        logging::exit(tool.run());
    }
    if std::env::args_os().nth(1).is_some_and(|name| name == "bench") {
        logging::exit(bench::main(std::env::args_os().skip(1)));
    }
    let config = Config::from_process();
    if let Err(error) = logging::init(&config) {
        let failure = Failure::from_start(error, Failure::Logging);
        eprintln!("kvlite: {failure}");
        logging::exit(failure.exit_status());
    }
    let status = match kvlite::run(config) {
        Ok(()) => 0,
        Err(failure) => {
            tracing::error!("{failure}");
            failure.exit_status()
        }
    };
    logging::exit(status);
}
