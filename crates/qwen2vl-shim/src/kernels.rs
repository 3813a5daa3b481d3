//! What computes in the place of OpenVINO, and what it knows of the model that it computes for.

use std::panic::AssertUnwindSafe;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qwen2vl_kernels::{KvCache, Pool, Scratch, Sequences, free_rows, is_supported};

/// Threads and memory of products and attention; models share them, one operation at a time.
pub struct Kernels {
    pool: Pool,
    scratch: Mutex<Scratch>,
}

impl Kernels {
    /// Whether the processor has what they need.
    pub fn are_supported() -> bool {
        is_supported()
    }

    /// Rows of a product that take little longer than one.
    pub fn free_rows() -> usize {
        free_rows()
    }

    /// Threads that work.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// On so many threads; `None` where the processor has not what they need.
    pub fn new(threads: usize) -> Option<Self> {
        is_supported().then(|| Self { pool: Pool::new(threads), scratch: Mutex::default() })
    }

    /// Whether work came to its end: a panic must not pass through C++. What it leaves is made NaN by the caller, which is seen as
    /// damage by those who sample.
    pub(crate) fn run(&self, work: impl FnOnce(&mut Scratch, &Pool)) -> bool {
        let run = AssertUnwindSafe(|| {
            work(&mut locked(&self.scratch), &self.pool);
        });
        std::panic::catch_unwind(run).is_ok()
    }
}

/// A model's kernels, and while one of its steps runs what paged attention reads.
pub(crate) struct Context {
    pub kernels: Arc<Kernels>,
    step: Mutex<Option<Step>>,
    /// One step at a time.
    running: Mutex<()>,
}

/// Lives as long as [`Context::during`] runs.
#[derive(Clone, Copy)]
struct Step {
    cache: NonNull<KvCache>,
    sequences: NonNull<Sequences>,
}

// SAFETY: what it points to may be used by any thread; `during` has both to itself.
unsafe impl Send for Step {}

impl Context {
    pub(crate) fn new(kernels: Arc<Kernels>) -> Self {
        Self { kernels, step: Mutex::new(None), running: Mutex::new(()) }
    }

    /// Lets paged attention use a cache and sequences while `run` runs.
    pub(crate) fn during<R>(&self, cache: &mut KvCache, sequences: &Sequences, run: impl FnOnce() -> R) -> R {
        struct End<'c>(&'c Context);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                *locked(&self.0.step) = None;
            }
        }
        let _one = locked(&self.running);
        let step = Step { cache: NonNull::from(cache), sequences: NonNull::from(sequences) };
        *locked(&self.step) = Some(step);
        let _end = End(self);
        run()
    }

    /// The running step's cache and sequences, for one caller at a time; `None` where there is none.
    pub(crate) fn with_step<R>(&self, run: impl FnOnce(&mut KvCache, &Sequences) -> R) -> Option<R> {
        let step = locked(&self.step);
        // SAFETY: `during` still runs, which else would have taken them back and waits for the lock to do so; nobody else uses the
        // cache meanwhile.
        step.map(|mut step| unsafe { run(step.cache.as_mut(), step.sequences.as_ref()) })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
