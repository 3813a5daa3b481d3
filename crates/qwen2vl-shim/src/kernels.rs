//! What computes in the place of OpenVINO, and what it knows of the model that it computes for.

use std::panic::AssertUnwindSafe;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qwen2vl_kernels::{KvCache, Pool, Scratch, Sequences, free_rows, is_supported};

/// Threads and memory of products and attention; models share them, one operation at a time.
pub struct Kernels {
    pool: Pool<'static>,
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
    fn run(&self, stopped: Option<Stopped<'_>>, work: impl FnOnce(&mut Scratch, &Pool<'_>)) -> bool {
        let run = AssertUnwindSafe(|| {
            let scratch = &mut locked(&self.scratch);
            match stopped {
                Some(stopped) => work(scratch, &self.pool.until(stopped)),
                None => work(scratch, &self.pool),
            }
        });
        std::panic::catch_unwind(run).is_ok()
    }
}

/// Says whether what is computed is not wanted any more.
pub(crate) type Stopped<'a> = &'a (dyn Fn() -> bool + Sync);

/// A model's kernels, and while one of its requests runs what they need to know of it.
pub(crate) struct Context {
    kernels: Arc<Kernels>,
    running: Mutex<Running>,
    /// One request at a time.
    one: Mutex<()>,
}

/// Lives as long as [`Context::during`] runs.
#[derive(Clone, Copy, Default)]
pub(crate) struct Running {
    /// What paged attention reads and writes.
    step: Option<(NonNull<KvCache>, NonNull<Sequences>)>,
    stopped: Option<NonNull<dyn Fn() -> bool + Sync>>,
}

// SAFETY: what it points to may be used by any thread; `during` has all of it to itself.
unsafe impl Send for Running {}

impl Running {
    pub(crate) fn on(cache: &mut KvCache, sequences: &Sequences) -> Self {
        Self { step: Some((NonNull::from(cache), NonNull::from(sequences))), stopped: None }
    }

    pub(crate) fn until(stopped: Stopped<'_>) -> Self {
        // SAFETY: only the lifetime changes; it is used within `during` alone.
        let stopped = unsafe { std::mem::transmute::<Stopped<'_>, Stopped<'static>>(stopped) };
        Self { step: None, stopped: Some(NonNull::from(stopped)) }
    }
}

impl Context {
    pub(crate) fn new(kernels: Arc<Kernels>) -> Self {
        Self { kernels, running: Mutex::default(), one: Mutex::new(()) }
    }

    /// Runs a request.
    ///
    /// # Safety
    ///
    /// What `running` was made of lives until this returns, and nobody else uses it.
    pub(crate) unsafe fn during<R>(&self, running: Running, run: impl FnOnce() -> R) -> R {
        struct End<'c>(&'c Context);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                *locked(&self.0.running) = Running::default();
            }
        }
        let _one = locked(&self.one);
        *locked(&self.running) = running;
        let _end = End(self);
        run()
    }

    /// Whether work came to its end, or was stopped: then nobody looks at what it leaves.
    pub(crate) fn run(&self, work: impl FnOnce(&mut Scratch, &Pool<'_>)) -> bool {
        let running = locked(&self.running);
        // SAFETY: `during` still runs, which waits for the lock before it ends.
        let stopped = running.stopped.map(|stopped| unsafe { &*stopped.as_ptr() });
        stopped.is_some_and(|stopped| stopped()) || self.kernels.run(stopped, work)
    }

    /// The same for work on the running step's cache and sequences; `false` where there is none.
    pub(crate) fn run_on_cache(&self, work: impl FnOnce(&mut KvCache, &Sequences, &Pool<'_>)) -> bool {
        let running = locked(&self.running);
        let Some((mut cache, sequences)) = running.step else { return false };
        // SAFETY: `during` still runs, which waits for the lock before it ends; whoever has the lock has the cache to itself.
        let (cache, sequences) = unsafe { (cache.as_mut(), sequences.as_ref()) };
        self.kernels.run(None, |_, pool| work(cache, sequences, pool))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
