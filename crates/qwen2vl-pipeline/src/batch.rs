//! Many requests in order: while one is in inference, the next is read, decoded and preprocessed on another thread.

use std::ops::ControlFlow;
use std::sync::mpsc;

use qwen2vl_runtime::CancelToken;

use crate::{Annotation, Annotator, Error, Prepared, Request};

impl Annotator {
    /// Answers requests one after the other and hands each result to `on_result` with the request's index, in order.
    /// One request's error is its own result and ends no other; an input that could not become a request at all is
    /// handed on in its turn. Ends early when `cancel` is set: the request in work ends as `cancelled` and is handed
    /// over, later ones are not started.
    ///
    /// Memory is bounded: at most one request is prepared ahead of the one in inference.
    pub fn run_all(
        &self,
        requests: impl IntoIterator<Item = Result<Request, Error>, IntoIter: Send>,
        cancel: &CancelToken,
        on_result: impl FnMut(usize, Result<Annotation, Error>) -> ControlFlow<()>,
    ) {
        let answer = |request: &Request, prepared: &Prepared| {
            self.run_prepared(request, prepared, cancel, |_| ControlFlow::Continue(()))
        };
        self.prepare_ahead(requests, cancel, answer, on_result);
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
                        let prepared = self.prepare(&request)?;
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
