//! What was measured of every engine, the ratios between them, and the goals.
//!
//! A figure that is missing stays missing: no ratio is made up for it. Used by the bench `peers`.

use std::process::ExitCode;
use std::time::Duration;

use super::{Engine, Steps};
use crate::load::Reached;
use crate::verdict::Verdict;

/// Clients at one time, the fewest first.
pub const CLIENTS: [usize; 4] = [1, 16, 64, 256];

const MUST_P50_ALONE: Duration = Duration::from_millis(3);

/// The Motet whose ratios are goals: nodes share their runs through PostgreSQL, and DBOS keeps its own there too.
const JUDGED: Engine = Engine::MotetPostgres;

/// A ratio of runs per second in a crowd: Motet's over a peer's.
struct Goal {
    peer: Engine,
    steps: Steps,
    must: Option<f64>,
    aim: f64,
}

const GOALS: [Goal; 3] = [
    Goal { peer: Engine::RestateTuned, steps: Steps::InProcess, must: Some(2.0), aim: 5.0 },
    Goal { peer: Engine::Dbos, steps: Steps::InProcess, must: Some(14.0), aim: 30.0 },
    Goal { peer: Engine::RestateTuned, steps: Steps::Http, must: None, aim: 3.0 },
];

/// One engine with one kind of steps.
#[derive(Debug)]
pub struct Series {
    /// The engine.
    pub engine: Engine,
    /// The kind of steps.
    pub steps: Steps,
    /// Cores that others used just before.
    pub others_cores: f64,
    /// A figure for each count of clients up to the first that failed.
    pub points: Vec<Reached>,
    /// Why figures are missing.
    pub missing: Option<String>,
}

impl Series {
    fn at(&self, clients: usize) -> Option<&Reached> {
        self.points.iter().find(|point| point.clients == clients)
    }
}

/// Everything that was measured in one sitting.
#[derive(Debug, Default)]
pub struct Comparison {
    series: Vec<Series>,
}

impl Comparison {
    /// Adds what was measured of one engine.
    pub fn add(&mut self, series: Series) {
        self.series.push(series);
    }

    fn of_motet(&self) -> impl Iterator<Item = &Series> {
        self.series.iter().filter(|series| series.engine.is_motet() && !series.points.is_empty())
    }

    fn of_peers(&self) -> impl Iterator<Item = &Series> {
        self.series.iter().filter(|series| !series.engine.is_motet() && !series.points.is_empty())
    }

    /// Prints every figure, and then every ratio.
    pub fn print(&self) {
        println!();
        println!(
            "{:<15} {:<11} {:>8} {:>9} {:>9} {:>9}   others used",
            "engine", "steps", "clients", "runs/s", "p50 ms", "p99 ms"
        );
        for series in &self.series {
            let name = format!("{:<15} {:<11}", series.engine, series.steps);
            for point in &series.points {
                let millis = |quantile| point.at(quantile).as_secs_f64() * 1e3;
                println!(
                    "{name} {:>8} {:>9.0} {:>9.2} {:>9.2}   {:.1} cores before",
                    point.clients,
                    point.runs_per_second,
                    millis(0.5),
                    millis(0.99),
                    series.others_cores
                );
            }
            if let Some(why) = &series.missing {
                println!("{name} FAILED: {why}");
            }
        }
        self.print_ratios();
    }

    fn print_ratios(&self) {
        println!();
        println!("how many times the runs/s of the peer, with the same steps");
        let columns: Vec<_> = CLIENTS.iter().map(|clients| format!("{clients:>9}")).collect();
        println!("{:<15} {:<15} {:<11} {} clients", "motet", "peer", "steps", columns.join(" "));
        for motet in self.of_motet() {
            for peer in self.of_peers().filter(|peer| peer.steps == motet.steps) {
                let ratios = CLIENTS.map(|clients| match ratio(motet, peer, clients) {
                    Some(ratio) => format!("{ratio:>9.1}"),
                    None => format!("{:>9}", "-"),
                });
                println!("{:<15} {:<15} {:<11} {}", motet.engine, peer.engine, motet.steps, ratios.join(" "));
            }
        }
        println!();
    }

    /// Holds what was measured against the goals: the ratios for Motet on PostgreSQL, the rest for both. What was not
    /// measured is not judged; what failed is a failure.
    #[must_use]
    pub fn judge(&self) -> ExitCode {
        let mut verdict = Verdict::new();
        let crowd = CLIENTS[CLIENTS.len() - 1];
        for motet in self.of_motet() {
            if motet.engine == JUDGED {
                self.judge_ratios(motet, crowd, &mut verdict);
            }
            if let (Steps::InProcess, Some(alone)) = (motet.steps, motet.at(1)) {
                let p50 = alone.at(0.5);
                let goal = format!("{}: p50 below {MUST_P50_ALONE:?} at one client, was {p50:?}", motet.engine);
                verdict.must(p50 < MUST_P50_ALONE, goal);
            }
            self.judge_every_point(motet, &mut verdict);
        }
        for series in self.series.iter().filter(|series| series.missing.is_some()) {
            verdict.must(false, format!("{}, steps {}: measured without a failure", series.engine, series.steps));
        }
        verdict.end()
    }

    fn judge_every_point(&self, motet: &Series, verdict: &mut Verdict) {
        let points: Vec<_> = self
            .of_peers()
            .filter(|peer| peer.steps == motet.steps)
            .flat_map(|peer| CLIENTS.map(|clients| (peer, clients)))
            .filter_map(|(peer, clients)| ratio(motet, peer, clients).map(|ratio| (peer.engine, clients, ratio)))
            .collect();
        if points.is_empty() {
            return;
        }
        let behind: Vec<_> = points
            .iter()
            .filter(|(_, _, ratio)| *ratio <= 1.0)
            .map(|(peer, clients, _)| format!("{peer} at {clients}"))
            .collect();
        let exceptions = if behind.is_empty() { String::new() } else { format!("; not: {}", behind.join(", ")) };
        let wish = format!("{}, steps {}: ahead of every peer at every point{exceptions}", motet.engine, motet.steps);
        verdict.aim(behind.is_empty(), wish);
    }

    fn judge_ratios(&self, motet: &Series, crowd: usize, verdict: &mut Verdict) {
        for goal in GOALS.iter().filter(|goal| goal.steps == motet.steps) {
            let peer = self.of_peers().find(|peer| peer.engine == goal.peer && peer.steps == goal.steps);
            let Some(reached) = peer.and_then(|peer| ratio(motet, peer, crowd)) else { continue };
            let text = |times: f64| {
                format!(
                    "{}: {times} times {} at {crowd} clients, steps {}, was {reached:.1}",
                    motet.engine, goal.peer, goal.steps
                )
            };
            if let Some(must) = goal.must {
                verdict.must(reached >= must, text(must));
            }
            verdict.aim(reached >= goal.aim, text(goal.aim));
        }
    }
}

fn ratio(motet: &Series, peer: &Series, clients: usize) -> Option<f64> {
    let (motet, peer) = motet.at(clients).zip(peer.at(clients))?;
    (peer.runs_per_second > 0.0).then(|| motet.runs_per_second / peer.runs_per_second)
}
