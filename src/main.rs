//! The kvlite program: a tool if the first argument names one, else the server. Options in, exit status out.

use kvlite::config::Config;
use kvlite::tools::Tool;

fn main() {
    if let Some(tool) = Tool::from_process() {
        std::process::exit(tool.run());
    }
    let config = Config::from_process();
    kvlite::logging::init(&config);
    if let Err(failure) = kvlite::run(config) {
        tracing::error!("{failure}");
        std::process::exit(failure.exit_status());
    }
}
