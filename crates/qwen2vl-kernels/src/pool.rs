//! Threads for work of microseconds: they look for more for a moment before they sleep, and nobody waits for a sleeper.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread looks for work before it sleeps; a decode step has a product every 150 microseconds.
const PATIENCE: Duration = Duration::from_micros(400);

/// Set in `Shared::state` while no job may be entered.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// A job's function, whose lifetime ends no sooner than the job.
#[derive(Clone, Copy)]
struct Task(*const (dyn Fn(usize) + Sync));

// SAFETY: the function is `Sync`.
unsafe impl Send for Task {}

struct Shared {
    /// Counts jobs.
    generation: AtomicU64,
    /// Threads in the job, or `CLOSED`.
    state: AtomicUsize,
    /// The next index, and one past the last.
    next: AtomicUsize,
    n: AtomicUsize,
    task: Mutex<Option<Task>>,
    sleepers: Mutex<usize>,
    wake: Condvar,
    stop: AtomicBool,
    /// Whether a worker panicked in the job.
    panicked: AtomicBool,
}

/// A number of threads, the caller's included, and whether what they do is still wanted.
pub struct Pool<'s> {
    threads: Arc<Threads>,
    stopped: Option<&'s (dyn Fn() -> bool + Sync)>,
}

struct Threads {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One job at a time.
    running: Mutex<()>,
}

impl Pool<'_> {
    /// `threads` in all, at least the caller's.
    pub fn new(threads: usize) -> Self {
        Self { threads: Arc::new(Threads::new(threads)), stopped: None }
    }

    /// The same threads, which call no more tasks once `stopped` says so.
    pub fn until<'s>(&self, stopped: &'s (dyn Fn() -> bool + Sync)) -> Pool<'s> {
        Pool { threads: Arc::clone(&self.threads), stopped: Some(stopped) }
    }

    /// Threads that work.
    pub fn threads(&self) -> usize {
        self.threads.workers.len() + 1
    }

    /// Calls `task` with each of `0..n`, on all threads, unless it is stopped. Calls from several threads wait for each other; a
    /// task must not call it.
    ///
    /// # Panics
    ///
    /// If a task does, on whatever thread; the pool stays usable.
    pub fn run(&self, n: usize, task: &(dyn Fn(usize) + Sync)) {
        match self.stopped {
            None => self.threads.run(n, task),
            Some(stopped) => self.threads.run(n, &|i| {
                if !stopped() {
                    task(i);
                }
            }),
        }
    }
}

impl Threads {
    fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            generation: AtomicU64::new(0),
            state: AtomicUsize::new(CLOSED),
            next: AtomicUsize::new(0),
            n: AtomicUsize::new(0),
            task: Mutex::new(None),
            sleepers: Mutex::new(0),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
        });
        let worker = |i: usize| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("kernel-{i}")).spawn(move || shared.work()).ok()
        };
        // A thread that cannot be had is done without.
        let workers = (1..threads).filter_map(worker).collect();
        Self { shared, workers, running: Mutex::new(()) }
    }

    fn run(&self, n: usize, task: &(dyn Fn(usize) + Sync)) {
        if n <= 1 || self.workers.is_empty() {
            return (0..n).for_each(task);
        }
        let _one = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // Dropped last: no thread is in the job when `task`'s lifetime ends, not even if this one panics.
        let end = End(&self.shared);
        self.shared.begin(n, task);
        self.shared.take_part(task);
        drop(end);
        assert!(!self.shared.panicked.load(Ordering::Acquire), "a task panicked on another thread");
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.generation.fetch_add(1, Ordering::Release);
        drop(self.shared.sleepers.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.wake.notify_all();
        self.workers.drain(..).for_each(|worker| _ = worker.join());
    }
}

/// Closes a job and waits for those that are in it.
struct End<'s>(&'s Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        // Nothing is left to be taken, should the caller have panicked.
        self.0.next.store(usize::MAX / 2, Ordering::Relaxed);
        let mut in_it = self.0.state.fetch_or(CLOSED, Ordering::AcqRel) & !CLOSED;
        let mut spins = 0u32;
        while in_it > 0 {
            relax(&mut spins);
            in_it = self.0.state.load(Ordering::Acquire) & !CLOSED;
        }
    }
}

/// A thread's presence in a job.
struct Presence<'s>(&'s Shared);

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        self.0.state.fetch_sub(1, Ordering::AcqRel);
    }
}

fn relax(spins: &mut u32) {
    *spins += 1;
    if spins.is_multiple_of(512) { std::thread::yield_now() } else { std::hint::spin_loop() }
}

impl Shared {
    fn begin(&self, n: usize, task: &(dyn Fn(usize) + Sync)) {
        // SAFETY: only the lifetime changes; `End` outlives every use.
        let task: Task = Task(unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync), *const (dyn Fn(usize) + Sync)>(task)
        });
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        self.panicked.store(false, Ordering::Relaxed);
        self.next.store(0, Ordering::Relaxed);
        self.n.store(n, Ordering::Relaxed);
        self.state.store(0, Ordering::Release);
        self.generation.fetch_add(1, Ordering::Release);
        if *self.sleepers.lock().unwrap_or_else(PoisonError::into_inner) > 0 {
            self.wake.notify_all();
        }
    }

    fn take_part(&self, task: &(dyn Fn(usize) + Sync)) {
        let n = self.n.load(Ordering::Relaxed);
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= n {
                return;
            }
            task(i);
        }
    }

    /// A worker's life.
    fn work(&self) {
        let mut seen = 0;
        while let Some(generation) = self.next_job(seen) {
            seen = generation;
            let enter = |state| if state & CLOSED == 0 { Some(state + 1) } else { None };
            if self.state.fetch_update(Ordering::AcqRel, Ordering::Relaxed, enter).is_err() {
                continue;
            }
            let _presence = Presence(self);
            let task = *self.task.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(task) = task {
                // SAFETY: the job's caller stays in `run` until the presence ends.
                let take_part = || self.take_part(unsafe { &*task.0 });
                // The caller panics in its place.
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(take_part)).is_err() {
                    self.panicked.store(true, Ordering::Release);
                }
            }
        }
    }

    /// Waits for a job after `seen`; `None` when the pool ends.
    fn next_job(&self, seen: u64) -> Option<u64> {
        let started = Instant::now();
        let mut spins = 0;
        loop {
            let generation = self.generation.load(Ordering::Acquire);
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if generation != seen {
                return Some(generation);
            }
            relax(&mut spins);
            if spins % 256 == 0 && started.elapsed() > PATIENCE {
                let mut sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
                *sleepers += 1;
                let awake = |_: &mut usize| self.generation.load(Ordering::Acquire) == seen;
                let mut sleepers =
                    self.wake.wait_while(sleepers, awake).unwrap_or_else(PoisonError::into_inner);
                *sleepers -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_is_called_once_whoever_is_asleep() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads);
            for round in 0..300 {
                let counts: Vec<AtomicUsize> = (0..round % 37).map(|_| AtomicUsize::new(0)).collect();
                pool.run(counts.len(), &|i| _ = counts[i].fetch_add(1, Ordering::Relaxed));
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
                if round % 100 == 0 {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        }
    }

    #[test]
    fn no_task_is_called_once_it_is_stopped() {
        let pool = Pool::new(2);
        let (called, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let stopped = || stop.load(Ordering::Relaxed);
        pool.until(&stopped).run(1000, &|i| {
            called.fetch_add(1, Ordering::Relaxed);
            if i == 10 {
                stop.store(true, Ordering::Relaxed);
            }
        });
        // The other thread may be in one more.
        assert!((11..200).contains(&called.load(Ordering::Relaxed)), "{called:?}");
        pool.until(&stopped).run(1, &|_| unreachable!("it is stopped"));
        let all = AtomicUsize::new(0);
        pool.run(10, &|_| _ = all.fetch_add(1, Ordering::Relaxed));
        assert_eq!(all.into_inner(), 10);
    }

    #[test]
    fn callers_on_several_threads_wait_for_each_other() {
        let pool = Pool::new(3);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..200 {
                        let sum = AtomicUsize::new(0);
                        pool.run(n, &|i| _ = sum.fetch_add(i, Ordering::Relaxed));
                        assert_eq!(sum.into_inner(), n * n.saturating_sub(1) / 2);
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_of_another_thread_is_the_callers_and_leaves_the_pool_usable() {
        let pool = Pool::new(2);
        let caller = std::thread::current().id();
        let (on_worker, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        for round in 0..20 {
            let task = |_: usize| {
                if std::thread::current().id() != caller && on_worker.fetch_add(1, Ordering::Relaxed) == round
                {
                    panic!("on purpose");
                }
                std::thread::sleep(Duration::from_millis(1));
                done.fetch_add(1, Ordering::Relaxed);
            };
            let run = std::panic::AssertUnwindSafe(|| pool.run(20, &task));
            let panicked = std::panic::catch_unwind(run).is_err();
            // As long as the worker took part, its panic is seen.
            assert_eq!(panicked, on_worker.load(Ordering::Relaxed) > round, "round {round}");
            on_worker.store(round + 1, Ordering::Relaxed);
        }
        let sum = AtomicUsize::new(0);
        pool.run(10, &|i| _ = sum.fetch_add(i, Ordering::Relaxed));
        assert_eq!(sum.into_inner(), 45);
    }

    #[test]
    fn a_panic_of_the_caller_leaves_the_pool_usable() {
        let pool = Pool::new(2);
        let caller = std::thread::current().id();
        let panics = |_: usize| {
            if std::thread::current().id() == caller {
                panic!("on purpose");
            }
        };
        let run = std::panic::AssertUnwindSafe(|| pool.run(1000, &panics));
        let _ = std::panic::catch_unwind(run);
        let sum = AtomicUsize::new(0);
        pool.run(10, &|i| _ = sum.fetch_add(i, Ordering::Relaxed));
        assert_eq!(sum.into_inner(), 45);
    }
}
