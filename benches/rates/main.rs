//! Measures how fast the server is, compared with the most that its database and its framework can do.
//! `cargo bench` prints one table.
//!
//! The real program runs in its own process, and a cheap client calls it over TCP. Rounds of calls alternate
//! with rounds of two other measurements, so that a busy machine affects them all. The floor is single-row
//! statements through sqlx on a table like that of the sessions. It uses the number of connections that is
//! fastest (8 to 64, or one for a single caller). The bare handler ([`bare`]) answers the same client over the
//! same number of connections. Rely on `x bare`, the processor time per call compared with the bare handler's.
//! It depends least on the machine.

mod bare;
mod client;
mod cpu;
mod floor;
mod merchants;
mod server;

/// That of the real program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[path = "../../tests/support/postgres/mod.rs"]
#[expect(dead_code, reason = "the tests stop, copy and share clusters; here is one")]
mod postgres;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use bare::Bare;
use client::{Client, Load, Round};
use cpu::Cpu;
use floor::{Floor, Statement};
use server::Server;

/// How many merchants call in turns if no other number is given.
const MERCHANTS: usize = 16;

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
    /// Spread the calls in turns over this many merchants, and beside it over a single one.
    #[arg(long)]
    merchants: Option<usize>,
    /// `database.cache_mib_max` of the server.
    #[arg(long, default_value_t = 24)]
    cache_mib: u32,
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
    /// Be the bare handler, at this address.
    #[arg(long, hide = true)]
    serve_bare: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Engine {
    Sqlite,
    Postgres,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Operation {
    /// A call of the bare handler, which every measurement has beside it.
    #[value(skip)]
    Bare,
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
            Self::Bare | Self::Issue => Statement::Insert,
            Self::Refresh => Statement::Update,
            Self::Introspect | Self::Verify => Statement::Select,
        }
    }
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    if let Some(address) = options.serve_bare {
        bare::serve(address);
        return Ok(());
    }
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{:<9} {:<11} {:>6} {:>5} {:>9} {:>7} {:>7} {:>9} {:>6} {:>9} {:>9} {:>9} {:>6}",
        "", "", "mer-", "", "calls", "p50", "p99", "floor", "", "us", "us", "us", ""
    )?;
    writeln!(
        out,
        "{:<9} {:<11} {:>6} {:>5} {:>9} {:>7} {:>7} {:>9} {:>6} {:>9} {:>9} {:>9} {:>6}",
        "engine",
        "operation",
        "chants",
        "conns",
        "per s",
        "ms",
        "ms",
        "per s",
        "ratio",
        "server",
        "database",
        "client",
        "x bare"
    )?;
    let bare = Bare::start();
    let mut of_bare = BTreeMap::new();
    for engine in [Engine::Sqlite, Engine::Postgres] {
        if options.engine.is_none_or(|only| only == engine) {
            measure_engine(&options, engine, &bare, &mut of_bare, &mut out)?;
        }
    }
    of_bare.iter().try_for_each(|(connections, rounds)| write_bare_row(&mut out, *connections, rounds))
}

/// Over how many merchants calls are spread.
fn spreads(options: &Options) -> Vec<usize> {
    match options.merchants {
        Some(merchants) => vec![1, merchants],
        None => vec![MERCHANTS],
    }
}

/// The rounds of the bare handler, by connections.
type OfBare = BTreeMap<usize, Vec<Taken>>;

fn measure_engine(
    options: &Options,
    engine: Engine,
    bare: &Bare,
    of_bare: &mut OfBare,
    out: &mut impl Write,
) -> io::Result<()> {
    let home = server::Home::new(engine, &options.program, options.cache_mib);
    let floor = Floor::new(home.url());
    floor.load_sessions(options.dead, options.rows);
    let spreads = spreads(options);
    merchants::write(&floor, spreads.iter().copied().max().unwrap_or(1));
    let server = Server::start(&home);
    let client = Client::new(&server, bare);
    if let Some(merchants) = options.merchants {
        client.warm_up(merchants);
    }
    for operation in Operation::ALL {
        if options.operation.is_some_and(|only| only != operation) {
            continue;
        }
        let best = floor.best_tasks(operation.statement(), ROUND);
        for connections in operation.connections() {
            let tasks = if *connections == 1 { 1 } else { best };
            let sessions: Vec<_> =
                spreads.iter().map(|merchants| client.sessions_for(operation, *merchants)).collect();
            let connect = |(merchants, sessions): (&usize, &Vec<_>)| {
                client.connect(operation, *connections, *merchants, sessions)
            };
            let mut loads: Vec<_> = spreads.iter().zip(&sessions).map(connect).collect();
            let mut bare_load = client.connect(Operation::Bare, *connections, 1, &[]);
            let measured =
                measure(options, operation, (&mut loads, &mut bare_load), (&server, bare), &floor, tasks);
            for (merchants, calls) in spreads.iter().zip(&measured.calls) {
                write_row(out, (engine, operation, *merchants, *connections), calls, &measured)?;
            }
            out.flush()?;
            of_bare.entry(*connections).or_default().extend(measured.bare);
        }
    }
    if options.merchants.is_some() {
        let looks = |cache, result| {
            server.metric(&format!("tollgate_cache_looks_total{{cache=\"{cache}\",result=\"{result}\"}}"))
        };
        // A record is looked for once the owner of the key is known.
        let (hits, misses) =
            (looks("records", "hit"), looks("records", "miss") + looks("key_owners", "miss"));
        let (share, memory) = (hits * 100 / (hits + misses), cpu::memory_of(server.pid()));
        writeln!(
            out,
            "{:<9} found {share} % of the records in memory, of which it took at most {memory} MiB",
            ""
        )?;
    }
    match server.metric("tollgate_exchanges_dropped_total") {
        0 => Ok(()),
        dropped => writeln!(out, "{dropped} exchange records were dropped"),
    }
}

/// A round of calls, and the processor time that it took.
struct Taken {
    round: Round,
    cpu: Cpu,
}

/// As many rounds of each.
struct Measured {
    /// By the number of merchants.
    calls: Vec<Vec<Taken>>,
    bare: Vec<Taken>,
    floors: Vec<f64>,
}

fn measure(
    options: &Options,
    operation: Operation,
    (loads, bare_load): (&mut [Load<'_>], &mut Load<'_>),
    (server, bare): (&Server, &Bare),
    floor: &Floor,
    tasks: usize,
) -> Measured {
    let statement = operation.statement();
    for load in &mut *loads {
        load.run(WARM_UP);
    }
    bare_load.run(WARM_UP);
    floor.run(statement, tasks, WARM_UP);
    // Wait for records that the server still has to write. They are part of its cost, and must not slow the
    // others down.
    let take = |load: &mut Load<'_>| {
        server.settle();
        let before = Cpu::now(server, bare);
        let round = load.run(ROUND);
        server.settle();
        Taken { round, cpu: Cpu::now(server, bare).since(&before) }
    };
    let mut measured =
        Measured { calls: loads.iter().map(|_| Vec::new()).collect(), bare: Vec::new(), floors: Vec::new() };
    for _ in 0..options.rounds {
        server.settle();
        measured.floors.push(floor.run(statement, tasks, ROUND));
        measured.bare.push(take(bare_load));
        for (load, calls) in loads.iter_mut().zip(&mut measured.calls) {
            calls.push(take(load));
        }
    }
    measured
}

fn write_row(
    out: &mut impl Write,
    (engine, operation, merchants, connections): (Engine, Operation, usize, usize),
    calls: &[Taken],
    Measured { bare, floors, .. }: &Measured,
) -> io::Result<()> {
    let ratio = median(calls.iter().zip(floors).map(|(taken, floor)| taken.round.rate / floor).collect());
    let [server, database, client] =
        [|cpu: &Cpu| cpu.server, |cpu: &Cpu| cpu.database, |cpu: &Cpu| cpu.client]
            .map(|of| micros(calls, of));
    let [engine, operation] =
        [format!("{engine:?}"), format!("{operation:?}")].map(|name| name.to_lowercase());
    writeln!(
        out,
        "{engine:<9} {operation:<11} {merchants:>6} {connections:>5} {:>9.0} {:>7.2} {:>7.2} {:>9.0} {ratio:>6.2} {server:>9.1} \
         {database:>9.1} {client:>9.1} {:>6.2}",
        of_rounds(calls, |round| round.rate),
        of_rounds(calls, |round| round.p50_ms),
        of_rounds(calls, |round| round.p99_ms),
        median(floors.clone()),
        server / micros(bare, |cpu| cpu.bare),
    )
}

fn write_bare_row(out: &mut impl Write, connections: usize, rounds: &[Taken]) -> io::Result<()> {
    writeln!(
        out,
        "{:<9} {:<11} {:>6} {connections:>5} {:>9.0} {:>7.2} {:>7.2} {:>9} {:>6} {:>9.1} {:>9} {:>9.1} {:>6.2}",
        "",
        "bare",
        "",
        of_rounds(rounds, |round| round.rate),
        of_rounds(rounds, |round| round.p50_ms),
        of_rounds(rounds, |round| round.p99_ms),
        "",
        "",
        micros(rounds, |cpu| cpu.bare),
        "",
        micros(rounds, |cpu| cpu.client),
        1.0,
    )
}

fn of_rounds(rounds: &[Taken], of: fn(&Round) -> f64) -> f64 {
    median(rounds.iter().map(|taken| of(&taken.round)).collect())
}

/// Microseconds of processor time for each call of all the rounds.
fn micros(rounds: &[Taken], of: fn(&Cpu) -> f64) -> f64 {
    let calls: f64 = rounds.iter().map(|taken| taken.round.calls as f64).sum();
    rounds.iter().map(|taken| of(&taken.cpu)).sum::<f64>() / calls * 1e6
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
