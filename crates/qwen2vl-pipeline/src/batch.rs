//! Many requests: several at once, so that each step of the language model serves all of them; results in order.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};

use qwen2vl_runtime::CancelToken;

use crate::answer::Asked;
use crate::{Annotation, Annotator, Error, Prepared, Request};

/// Requests whose pixels are in memory: the one in the vision tower and the one after it.
const PREPARED: usize = 2;

impl Annotator {
    /// Answers requests, up to [`crate::AnnotatorBuilder::concurrency`] of them at once, and hands each result to
    /// `on_result` with the request's index, in order. One request's error is its own result and ends no other; an input
    /// that could not become a request at all is handed on in its turn. Ends early when `cancel` is set: the requests in
    /// work end as `cancelled` and are handed over, later ones are not started.
    ///
    /// Memory is bounded: at most two requests have their pixels in memory, and no request is begun while as many as may
    /// be in work wait for an earlier one to be handed over. Images go first: the more answers a step has, the less each
    /// of them costs. Times of annotations are those that passed, waiting for others included.
    pub fn run_all(
        &self,
        requests: impl IntoIterator<Item = Result<Request, Error>, IntoIter: Send>,
        cancel: &CancelToken,
        on_result: impl FnMut(usize, Result<Annotation, Error>) -> ControlFlow<()>,
    ) {
        if !self.engine.shares_steps() {
            let answer = |request: &Request, prepared: &Prepared| {
                self.run_prepared(request, prepared, cancel, |_| ControlFlow::Continue(()))
            };
            return self.prepare_ahead(requests, cancel, answer, on_result);
        }
        let _bulk = self.engine.bulk();
        // Who wants no more results ends what is in work, and not what else the caller's token is for.
        let cancel = cancel.child();
        let prepared = Permits::new(PREPARED);
        let answer = |request: &Request| self.run_in_turn(request, &prepared, &cancel);
        at_once(self.concurrency, requests, &cancel, answer, on_result);
    }

    /// Answers one of many requests.
    fn run_in_turn(
        &self,
        request: &Request,
        prepared: &Permits,
        cancel: &CancelToken,
    ) -> Result<Annotation, Error> {
        let options = request.options.or(&self.defaults);
        let permit = prepared.take();
        let mut prepared = self.prepare_cached(request)?;
        self.check_memory(&prepared, &options)?;
        let embeddings = self.encode(&prepared, cancel)?;
        prepared.images = Vec::new();
        drop(permit);
        let mut session = self.engine.session()?;
        let asked = Asked { request, options, prepared: &prepared, picture: 1 };
        self.answer(session.as_mut(), &asked, &embeddings, cancel, |_| ControlFlow::Continue(()))
    }

    /// Hands each request to `infer` and its result to `on_result`, while the next is prepared on another thread.
    pub(crate) fn prepare_ahead<R>(
        &self,
        requests: impl IntoIterator<Item = Result<Request, Error>, IntoIter: Send>,
        cancel: &CancelToken,
        infer: impl Fn(&Request, &Prepared) -> Result<R, Error>,
        mut on_result: impl FnMut(usize, Result<R, Error>) -> ControlFlow<()>,
    ) {
        let requests = requests.into_iter();
        std::thread::scope(|scope| {
            // A rendezvous: the preparing thread holds one finished request and waits.
            let (sender, receiver) = mpsc::sync_channel(0);
            scope.spawn(move || {
                for request in requests {
                    if cancel.is_cancelled() {
                        return;
                    }
                    let prepared = request.and_then(|request| {
                        let prepared = self.prepare_cached(&request)?;
                        Ok((request, prepared))
                    });
                    if sender.send(prepared).is_err() {
                        return;
                    }
                }
            });
            for (index, prepared) in receiver.iter().enumerate() {
                if cancel.is_cancelled() {
                    break;
                }
                let result = prepared.and_then(|(request, prepared)| infer(&request, &prepared));
                if on_result(index, result).is_break() {
                    break;
                }
            }
            drop(receiver);
        });
    }
}

/// Runs up to `n` items at once, and hands their results on in order, on this thread. No item is begun that is `2 n` or
/// more behind the next result to be handed on.
fn at_once<T: Send, R: Send>(
    n: usize,
    items: impl IntoIterator<Item = Result<T, Error>, IntoIter: Send>,
    cancel: &CancelToken,
    run: impl Fn(&T) -> Result<R, Error> + Sync,
    mut on_result: impl FnMut(usize, Result<R, Error>) -> ControlFlow<()>,
) {
    let items = Mutex::new(items.into_iter().enumerate());
    let window = Permits::new(n.saturating_mul(2));
    let worker = |sender: mpsc::Sender<(usize, Result<R, Error>)>| {
        loop {
            // Given back when the result is handed on.
            std::mem::forget(window.take());
            let next = match cancel.is_cancelled() {
                true => None,
                false => items.lock().unwrap_or_else(PoisonError::into_inner).next(),
            };
            let Some((index, item)) = next else { return window.give() };
            if sender.send((index, item.and_then(|item| run(&item)))).is_err() {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..n.max(1) {
            let sender = sender.clone();
            scope.spawn(|| worker(sender));
        }
        drop(sender);
        let (mut early, mut next, mut wanted) = (BTreeMap::new(), 0, true);
        for (index, result) in receiver {
            early.insert(index, result);
            while let Some(result) = early.remove(&next) {
                if wanted && on_result(next, result).is_break() {
                    wanted = false;
                    cancel.cancel();
                }
                next += 1;
                window.give();
            }
        }
    });
}

/// A number of permits, handed out and given back.
struct Permits {
    left: Mutex<usize>,
    changed: Condvar,
}

impl Permits {
    fn new(n: usize) -> Self {
        Self { left: Mutex::new(n), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a permit, which lasts as long as what is returned.
    fn take(&self) -> Permit<'_> {
        let mut left =
            self.changed.wait_while(self.lock(), |left| *left == 0).unwrap_or_else(PoisonError::into_inner);
        *left -= 1;
        Permit(self)
    }

    fn give(&self) {
        *self.lock() += 1;
        self.changed.notify_one();
    }
}

struct Permit<'p>(&'p Permits);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.give();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn results_come_in_order_whoever_is_first_and_no_more_than_asked_for_run_at_once() {
        let (running, most, begun) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let mut got = Vec::new();
        let run = |item: &usize| {
            begun.fetch_add(1, Ordering::SeqCst);
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(if item.is_multiple_of(7) { 20 } else { 1 }));
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(item * 10)
        };
        let items = (0..60).map(|i| if i == 5 { Err(Error::NoModel) } else { Ok(i) });
        at_once(4, items, &CancelToken::new(), run, |index, result| {
            assert!(begun.load(Ordering::SeqCst) <= index + 8 + 1, "too far ahead of {index}");
            got.push((index, result.ok()));
            ControlFlow::Continue(())
        });
        let want: Vec<_> = (0..60).map(|i| (i, (i != 5).then_some(i * 10))).collect();
        assert_eq!(got, want);
        assert_eq!(most.load(Ordering::SeqCst), 4);
    }

    #[test]
    fn nothing_is_begun_after_the_caller_has_enough() {
        let (outer, begun) = (CancelToken::new(), AtomicUsize::new(0));
        let cancel = outer.child();
        let mut got = Vec::new();
        let run = |_: &usize| Ok(begun.fetch_add(1, Ordering::SeqCst));
        at_once(3, (0..1000).map(Ok), &cancel, run, |index, _| {
            got.push(index);
            if index == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(got, [0, 1, 2, 3, 4]);
        assert!(begun.load(Ordering::SeqCst) < 20 && !outer.is_cancelled());
    }

    #[test]
    fn what_is_in_work_when_cancelled_is_handed_over() {
        let cancel = CancelToken::new();
        let mut got = Vec::new();
        let run = |item: &usize| {
            if *item == 10 {
                cancel.cancel();
            }
            Ok(*item)
        };
        at_once(2, (0..1000).map(Ok), &cancel, run, |index, _| {
            got.push(index);
            ControlFlow::Continue(())
        });
        assert!(got.len() >= 11 && got.len() < 20, "{got:?}");
        assert_eq!(got, (0..got.len()).collect::<Vec<_>>());
    }
}
