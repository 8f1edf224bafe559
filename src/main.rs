//! The kvlite program: a tool or the load generator if the first argument names one, else the server. Options
//! in, exit status out.

use kvlite::bench;
use kvlite::config::Config;
use kvlite::tools::Tool;
use tikv_jemallocator::Jemalloc;

/// Memory that was freed goes back to the system a second later; `.cargo/config.toml` has the settings.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() {
    if let Some(tool) = Tool::from_process() {
        std::process::exit(tool.run());
    }
    if std::env::args_os().nth(1).is_some_and(|name| name == "bench") {
        std::process::exit(bench::main(std::env::args_os().skip(1)));
    }
    let config = Config::from_process();
    kvlite::logging::init(&config);
    if let Err(failure) = kvlite::run(config) {
        tracing::error!("{failure}");
        std::process::exit(failure.exit_status());
    }
}
