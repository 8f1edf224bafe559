//! The kvlite program. Options in, exit status out.

use kvlite::cli::{self, Call};
use kvlite::config::Config;
use kvlite::failure::Failure;
use kvlite::{bench, health, import, logging, top};
use tikv_jemallocator::Jemalloc;

/// Memory that was freed goes back to the system a second later; `.cargo/config.toml` has the settings.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() {
    let status = match Call::from_process() {
        Call::Tool(tool) => tool.run(),
        Call::Bench(args) => bench::main(args),
        Call::Completions(args) => cli::print_completions(args),
        Call::Config(args) => cli::print_config(args),
        Call::Health(args) => health::main(args),
        Call::Import(args) => import::main(args),
        Call::Man(args) => cli::write_man(args),
        Call::Top(args) => top::main(args),
        Call::Server(config) => serve(*config),
    };
    logging::exit(status);
}

fn serve(config: Config) -> i32 {
    if let Err(error) = logging::init(&config) {
        let failure = Failure::from_start(error, Failure::Logging);
        eprintln!("kvlite: {failure}");
        return failure.exit_status();
    }
    match kvlite::run(config) {
        Ok(()) => 0,
        Err(failure) => {
            tracing::error!(error = %failure, "kvlite ends");
            failure.exit_status()
        }
    }
}
