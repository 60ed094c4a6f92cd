//! Subjects that take turns, and what is made of the numbers.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Value, json};

use crate::load::{self, Expected, Rate};
use crate::support::output_of;

/// Connections of the load generator.
pub const CONNECTIONS: usize = 64;

const WARM_UP: Duration = Duration::from_millis(500);

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Times {
    rounds: usize,
    round: Duration,
}

impl Times {
    /// From `BENCH_ROUNDS` and `BENCH_SECONDS`.
    pub fn from_environment() -> Self {
        let number = |name: &str, default: f64| {
            std::env::var(name).map_or(default, |text| match text.parse() {
                Ok(number) if number > 0.0 => number,
                _ => panic!("{name}: expected a number above 0"),
            })
        };
        let rounds = number("BENCH_ROUNDS", 5.0) as usize;
        Self { rounds: rounds.max(1), round: Duration::from_secs_f64(number("BENCH_SECONDS", 2.0)) }
    }

    /// How many rounds each subject has.
    pub fn rounds(self) -> usize {
        self.rounds
    }

    /// How long one is.
    pub fn round(self) -> Duration {
        self.round
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rounds of {:?}", self.rounds, self.round)
    }
}

/// Makes the bytes of a request, from the number of the round and its own.
pub type Request = Rc<dyn Fn(usize, usize) -> Vec<u8>>;

/// The same request each time.
pub fn always(request: Vec<u8>) -> Request {
    Rc::new(move |_, _| request.clone())
}

/// Something that answers requests.
pub struct Subject {
    /// What is measured.
    pub scenario: &'static str,
    /// Who is measured.
    pub name: &'static str,
    /// Its workers.
    pub workers: usize,
    /// Where it listens.
    pub address: SocketAddr,
    /// How many connections it gets.
    pub connections: usize,
    /// The processes whose CPU time counts.
    pub processes: Vec<u32>,
    /// What it is sent.
    pub request: Request,
    /// What it has to answer.
    pub expected: Expected,
    /// The name of an earlier subject whose rate it is held to.
    pub pace: Option<&'static str>,
    /// What was measured.
    pub rounds: Vec<Round>,
}

/// One subject's turn.
pub struct Round {
    /// As much as it can do.
    pub most: load::Run,
    /// CPU time of each process for each request, in microseconds.
    cpu_us_per_request: Vec<f64>,
    /// Half of that, at a constant rate.
    half: load::Run,
}

/// Measures all subjects in each round, after one round that only warms them up.
pub fn take_turns(subjects: &mut [Subject], times: Times) {
    for round in 0..=times.rounds {
        let mut rates = HashMap::new();
        for subject in &mut *subjects {
            let time = if round == 0 { WARM_UP } else { times.round };
            let run = |part: usize, time: Duration, rate: Rate| {
                let make = Rc::clone(&subject.request);
                let Subject { address, connections, expected, .. } = *subject;
                load::run(address, connections, time, rate, expected, move |number| make(2 * round + part, number))
            };
            let cpu = || subject.processes.iter().map(|process| cpu_micros(&[*process]));
            let before: Vec<_> = cpu().collect();
            let most = run(0, time, subject.pace.map_or(Rate::Most, |name| Rate::PerSecond(rates[name])));
            let each = |(after, before): (f64, &f64)| (after - before) / most.requests() as f64;
            let cpu_us_per_request = cpu().zip(&before).map(each).collect();
            rates.insert(subject.name, most.rate());
            let half = run(1, time / 2, Rate::PerSecond(most.rate() / 2.0));
            if round > 0 {
                subject.rounds.push(Round { most, cpu_us_per_request, half });
            }
            subject.processes.iter().copied().for_each(empty_log);
        }
    }
}

/// A minute of access log has a gigabyte. It was written, which is what counts. The process appends, so that it goes on
/// at the beginning.
fn empty_log(process: u32) {
    fs::File::options().write(true).open(format!("/proc/{process}/fd/1")).unwrap().set_len(0).unwrap();
}

/// The unit of times in `/proc`.
static TICKS_PER_SECOND: LazyLock<f64> =
    LazyLock::new(|| output_of(Command::new("getconf").arg("CLK_TCK")).parse().unwrap());

/// CPU time that processes have used, in microseconds: fields 14 and 15 of proc_pid_stat(5).
pub fn cpu_micros(processes: &[u32]) -> f64 {
    let ticks = processes.iter().map(|process| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        // The command's name may have blanks in it; it ends with the last parenthesis.
        let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()
    });
    ticks.sum::<f64>() * 1_000_000.0 / *TICKS_PER_SECOND
}

/// Says what the columns of [`print_table`] mean.
pub fn explain() {
    println!("CPU and requests/s: as many as it can do, over connections with keep-alive, HTTP/1.1, its turn alone;");
    println!("p50 and p99: half as many, at a constant rate, from when each request was due\n");
}

/// Prints rows of one scenario. A figure that a row does not have is a dash.
pub fn print_table(rows: &[Value]) {
    // What a limit let through stands beside what it costs.
    let are_limited = rows.iter().any(|row| row["admitted_per_second"].is_f64());
    let line = |cells: [String; 11]| {
        let [name, workers, connections, cpu, median, rate, p50, p99, admitted, bound, kept] = cells;
        print!("{name:<22} {workers:>7} {connections:>11} {cpu:>12} {median:>10} {rate:>12} {p50:>8} {p99:>8}");
        println!("{}", if are_limited { format!(" {admitted:>10} {bound:>8} {kept:>7}") } else { String::new() });
    };
    let heads = ["subject", "workers", "connections", "CPU µs, min", "median", "requests/s", "p50 µs", "p99 µs"];
    line(std::array::from_fn(|cell| [&heads[..], &["admitted/s", "bound/s", "bound"]].concat()[cell].to_owned()));
    for row in rows {
        let number = |name: &str, digits: usize| row[name].as_f64().map_or("-".to_owned(), |n| format!("{n:.digits$}"));
        let kept = row["rounds_over_bound"].as_u64().map_or("-", |rounds| if rounds == 0 { "kept" } else { "BROKEN" });
        line([
            row["subject"].as_str().unwrap().to_owned(),
            number("workers", 0),
            number("connections", 0),
            number("cpu_us_per_request_min", 1),
            number("cpu_us_per_request_median", 1),
            number("requests_per_second", 0),
            number("p50_us", 0),
            number("p99_us", 0),
            number("admitted_per_second", 1),
            number("admitted_per_second_bound", 1),
            kept.to_owned(),
        ]);
    }
}

/// A subject's row of `summary.json`: CPU and rate at the most that it can do, times of requests at half of that rate,
/// which come at a constant pace.
pub fn row(subject: &Subject) -> Value {
    let cpu = sorted(subject.rounds.iter().map(|round| round.cpu_us_per_request.iter().sum()));
    let rates = sorted(subject.rounds.iter().map(|round| round.most.rate()));
    let halves = sorted(subject.rounds.iter().map(|round| round.half.rate()));
    let micros = sorted(subject.rounds.iter().flat_map(|round| &round.half.micros).map(|micros| f64::from(*micros)));
    let mut row = json!({
        "scenario": subject.scenario,
        "subject": subject.name,
        "workers": subject.workers,
        "connections": subject.connections,
        "cpu_us_per_request_min": round_to_tenth(cpu[0]),
        "cpu_us_per_request_median": round_to_tenth(cpu[cpu.len() / 2]),
        "requests_per_second": round_to_tenth(rates[rates.len() / 2]),
        "p50_us": micros[micros.len() / 2],
        "p99_us": micros[micros.len() * 99 / 100],
        "p50_and_p99_at_requests_per_second": round_to_tenth(halves[halves.len() / 2]),
    });
    if subject.processes.len() > 1 {
        let median = |place: usize| {
            let cpu = sorted(subject.rounds.iter().map(|round| round.cpu_us_per_request[place]));
            round_to_tenth(cpu[cpu.len() / 2])
        };
        let name = |process: &u32| fs::read_to_string(format!("/proc/{process}/comm")).unwrap().trim().to_owned();
        let each = subject.processes.iter().enumerate().map(|(place, process)| (name(process), median(place).into()));
        row["cpu_us_per_request_median_of"] = Value::Object(each.collect());
    }
    if let Some(name) = subject.pace {
        row["paced_by"] = name.into();
    }
    row
}

/// In ascending order.
pub fn sorted(numbers: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut numbers: Vec<_> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers
}

/// With one digit behind the point.
pub fn round_to_tenth(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}
