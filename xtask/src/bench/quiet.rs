//! Whether the machine is quiet enough for figures to mean something.

use std::fmt;
use std::time::{Duration, Instant};

/// Samples of each look.
const SAMPLES: usize = 40;
/// Work of a sample on a core of these days: some milliseconds.
const SPINS: u64 = 4_000_000;
/// The most that the slow samples may be above the fast ones.
const MOST_SPREAD: f64 = 0.25;
/// How often it waits and looks again.
const PATIENCE: usize = 4;
const PAUSE: Duration = Duration::from_secs(10);

/// What a look at the machine showed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet {
    /// How much longer the same work took at the 90th percentile than at the 10th, all cores at work.
    pub spread: f64,
}

impl Quiet {
    fn is_enough(self) -> bool {
        self.spread <= MOST_SPREAD
    }
}

impl fmt::Display for Quiet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spread of equal work: {:.0} %", self.spread * 100.0)?;
        match self.is_enough() {
            true => Ok(()),
            false => {
                f.write_str(" - this machine is busy or shared: trust ratios, and of them the larger ones")
            }
        }
    }
}

/// Looks until the machine is quiet, or some times.
pub fn check() -> Quiet {
    let mut quiet = look();
    for _ in 0..PATIENCE {
        if quiet.is_enough() {
            break;
        }
        eprintln!("{quiet}; looking again in {} s", PAUSE.as_secs());
        std::thread::sleep(PAUSE);
        let again = look();
        quiet = if again.spread < quiet.spread { again } else { quiet };
    }
    quiet
}

fn look() -> Quiet {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let times = std::thread::scope(|scope| {
        let work: Vec<_> =
            (0..cores).map(|_| scope.spawn(|| (0..SAMPLES).map(|_| sample()).collect())).collect();
        work.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|_| Vec::new())).collect()
    });
    Quiet { spread: spread(times) }
}

fn sample() -> f64 {
    let started = Instant::now();
    let mut state = 1u64;
    for _ in 0..SPINS {
        state = std::hint::black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
    started.elapsed().as_secs_f64()
}

fn spread(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    at(0.9) / at(0.1) - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_that_of_the_tenths() {
        let even: Vec<f64> = vec![2.0; 50];
        assert!(spread(even.clone()).abs() < 1e-9);
        let mut noisy = even;
        noisy[10..20].fill(3.0);
        assert!((spread(noisy) - 0.5).abs() < 1e-9);
        assert!(Quiet { spread: 0.1 }.is_enough() && !Quiet { spread: f64::NAN }.is_enough());
        assert!(Quiet { spread: 0.5 }.to_string().contains("50 %"));
    }
}
