//! Measures how fast the server is, compared with the most that its database can do. `cargo bench` prints one
//! table.
//!
//! The real program runs in its own process, and a cheap client calls it over TCP. The floor is measured in
//! the same run with the same database: single-row statements through sqlx on a table like that of the
//! sessions. It uses the number of connections that is fastest (8 to 64, or one for a single caller). Rounds
//! of calls and of the floor alternate, so that a busy machine affects both. So rely on the ratio and not on
//! the absolute numbers.

mod client;
mod cpu;
mod floor;
mod server;

#[path = "../../tests/support/postgres/mod.rs"]
#[expect(dead_code, reason = "the tests stop, copy and share clusters; here is one")]
mod postgres;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use client::{Client, Load, Round};
use cpu::Cpu;
use floor::{Floor, Statement};
use server::Server;

/// Long enough for thousands of calls, short enough that the whole run takes a few minutes.
const ROUND: Duration = Duration::from_millis(700);

/// Calls before the first round, which fill caches and open connections.
const WARM_UP: Duration = Duration::from_millis(300);

#[derive(Parser)]
struct Options {
    /// Live rows that the table of sessions has before the first call.
    #[arg(long, default_value_t = 10_000)]
    rows: u64,
    /// Additional expired rows, which the server removes during the run.
    #[arg(long, default_value_t = 0)]
    dead: u64,
    /// Rounds of each measurement; the table has their medians.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measure on one engine only.
    #[arg(long)]
    engine: Option<Engine>,
    /// Measure one operation only.
    #[arg(long)]
    operation: Option<Operation>,
    /// Measure another build of the program.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_tollgate"))]
    program: PathBuf,
    /// Cargo passes this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Engine {
    Sqlite,
    Postgres,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Operation {
    Issue,
    Refresh,
    Introspect,
    Verify,
}

impl Operation {
    const ALL: [Self; 4] = [Self::Issue, Self::Refresh, Self::Introspect, Self::Verify];

    const fn connections(self) -> &'static [usize] {
        match self {
            Self::Issue => &[1, 64, 256],
            _ => &[1, 64],
        }
    }

    /// The least that the database has to do for an operation.
    const fn statement(self) -> Statement {
        match self {
            Self::Issue => Statement::Insert,
            Self::Refresh => Statement::Update,
            Self::Introspect | Self::Verify => Statement::Select,
        }
    }
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{:<9} {:<11} {:>5} {:>9} {:>8} {:>8} {:>9} {:>6}   {:>22}",
        "", "", "", "calls", "p50", "p99", "floor", "", "CPU s per 1,000 calls"
    )?;
    writeln!(
        out,
        "{:<9} {:<11} {:>5} {:>9} {:>8} {:>8} {:>9} {:>6}   {:>6} {:>6} {:>8}",
        "engine", "operation", "conns", "per s", "ms", "ms", "per s", "ratio", "server", "client", "database"
    )?;
    for engine in [Engine::Sqlite, Engine::Postgres] {
        if options.engine.is_none_or(|only| only == engine) {
            measure_engine(&options, engine, &mut out)?;
        }
    }
    Ok(())
}

fn measure_engine(options: &Options, engine: Engine, out: &mut impl Write) -> io::Result<()> {
    let home = server::Home::new(engine, &options.program);
    let floor = Floor::new(home.url());
    floor.load_sessions(options.dead, options.rows);
    let server = Server::start(&home);
    let client = Client::new(&server);
    for operation in Operation::ALL {
        if options.operation.is_some_and(|only| only != operation) {
            continue;
        }
        let best = floor.best_tasks(operation.statement(), ROUND);
        for connections in operation.connections() {
            let tasks = if *connections == 1 { 1 } else { best };
            let load = client.connect(operation, *connections);
            let (calls, floors) = measure(options, operation, load, &server, &floor, tasks);
            write_row(out, engine, operation, *connections, &calls, &floors)?;
            out.flush()?;
        }
    }
    match server.dropped_exchanges() {
        0 => Ok(()),
        dropped => writeln!(out, "{dropped} exchange records were dropped"),
    }
}

/// Rounds of calls, and as many of the floor in between.
fn measure(
    options: &Options,
    operation: Operation,
    mut load: Load<'_>,
    server: &Server,
    floor: &Floor,
    tasks: usize,
) -> (Vec<(Round, Cpu)>, Vec<f64>) {
    load.run(WARM_UP);
    let statement = operation.statement();
    floor.run(statement, tasks, WARM_UP);
    let mut calls = Vec::with_capacity(options.rounds);
    let mut floors = Vec::with_capacity(options.rounds);
    for _ in 0..options.rounds {
        // Wait for records that the server still has to write. They are part of its cost, and must not slow
        // the floor down.
        server.settle();
        floors.push(floor.run(statement, tasks, ROUND));
        let before = Cpu::now(server);
        let round = load.run(ROUND);
        server.settle();
        calls.push((round, Cpu::now(server).since(&before)));
    }
    (calls, floors)
}

fn write_row(
    out: &mut impl Write,
    engine: Engine,
    operation: Operation,
    connections: usize,
    rounds: &[(Round, Cpu)],
    floors: &[f64],
) -> io::Result<()> {
    let of_rounds = |of: fn(&Round) -> f64| median(rounds.iter().map(|(round, _)| of(round)).collect());
    let rate = of_rounds(|round| round.rate);
    let floor = median(floors.to_vec());
    let ratio = median(rounds.iter().zip(floors).map(|((round, _), floor)| round.rate / floor).collect());
    let calls: f64 = rounds.iter().map(|(round, _)| round.calls as f64).sum();
    let cost = |of: fn(&Cpu) -> f64| rounds.iter().map(|(_, cpu)| of(cpu)).sum::<f64>() / calls * 1000.0;
    let [engine, operation] =
        [format!("{engine:?}"), format!("{operation:?}")].map(|name| name.to_lowercase());
    writeln!(
        out,
        "{engine:<9} {operation:<11} {connections:>5} {rate:>9.0} {:>8.2} {:>8.2} {floor:>9.0} {:>6.2}   \
         {:>6.3} {:>6.3} {:>8.3}",
        of_rounds(|round| round.p50_ms),
        of_rounds(|round| round.p99_ms),
        ratio,
        cost(|cpu| cpu.server),
        cost(|cpu| cpu.client),
        cost(|cpu| cpu.database),
    )
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
