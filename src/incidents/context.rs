//! On behalf of what something runs: the route and the id of a request, or the name of a task.
//!
//! Set around every request by `http/observe.rs` and around every task by [`spawn`]; goes along with work on other
//! threads ([`blocking`], [`carried`]). A panic is caught where its request, its event or its task ends, never here
//! in between: it goes on to the one that waits.

use super::notice::{last_panic, set_last_panic};
use futures_util::FutureExt;
use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::sleep;

/// Before a task that has failed begins again: so a defect in its first step is no load.
const REVIVE_AFTER: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct Context {
    pub view: Arc<str>,
    pub request_id: Option<Arc<str>>,
}

tokio::task_local! {
    static PRESENT: Context;
}

thread_local! {
    /// Of the process outside of any task.
    static NOWHERE: RefCell<Context> = RefCell::new(Context { view: "process".into(), request_id: None });
}

impl Context {
    #[must_use]
    pub fn request(view: &str, id: &str) -> Self {
        Self { view: view.into(), request_id: Some(id.into()) }
    }
}

/// The innermost one.
pub(super) fn present() -> Context {
    PRESENT.try_with(Context::clone).unwrap_or_else(|_| NOWHERE.with_borrow(Context::clone))
}

/// A panic that was caught; its row has this id, if it could be noted.
#[derive(Clone, Debug)]
pub struct Caught(pub Option<String>);

/// Runs it in this context.
pub fn within<F: Future>(context: Context, work: F) -> impl Future<Output = F::Output> + use<F> {
    PRESENT.scope(context, work)
}

/// Runs what waits for nothing in this context.
pub fn within_now<T>(context: &Context, work: impl FnOnce() -> T) -> T {
    PRESENT.sync_scope(context.clone(), work)
}

/// Begins a task under this name. The only way tasks begin, so that each has one.
pub fn spawn<F>(view: &str, task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(named(view, task))
}

/// Begins a task under this name that begins anew after each panic, until it ends.
pub fn spawn_kept_alive<F>(view: &'static str, task: impl Fn() -> F + Send + 'static) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        while caught(view, task()).await.is_err() {
            sleep(REVIVE_AFTER).await;
            tracing::warn!("the task {view} begins again");
        }
    })
}

/// Runs something under this name.
fn named<F: Future>(view: &str, work: F) -> impl Future<Output = F::Output> + use<F> {
    within(Context { view: view.into(), request_id: None }, work)
}

/// Runs it under this name; a panic ends it alone.
///
/// # Errors
/// If it has panicked; that is noted.
pub fn caught<F: Future>(view: &str, work: F) -> impl Future<Output = Result<F::Output, Caught>> + use<F> {
    named(view, AssertUnwindSafe(work).catch_unwind()).map(|outcome| outcome.map_err(|_| Caught(last_panic())))
}

/// The same without anything to wait for.
///
/// # Errors
/// As [`caught`].
pub fn caught_now<T>(view: &str, work: impl FnOnce() -> T) -> Result<T, Caught> {
    let context = Context { view: view.into(), request_id: None };
    let outcome = PRESENT.sync_scope(context, || catch_unwind(AssertUnwindSafe(work)));
    outcome.map_err(|_| Caught(last_panic()))
}

/// What came of work on another thread.
type Outcome<T> = Result<T, (Box<dyn Any + Send>, Option<String>)>;

fn outcome<T>(result: std::thread::Result<T>) -> Outcome<T> {
    result.map_err(|panic| (panic, last_panic()))
}

/// Runs work on a thread that may block, in the present context; its panic goes on here.
///
/// # Errors
/// If the program is stopping and it was not begun.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    let context = present();
    let work = move || PRESENT.sync_scope(context, || outcome(catch_unwind(AssertUnwindSafe(work))));
    tokio::task::spawn_blocking(work).await.map(go_on)
}

/// Runs work that goes on should nobody wait for it, in the present context; its panic goes on here.
///
/// # Errors
/// If the program is stopping.
pub async fn carried<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, JoinError> {
    let context = present();
    let work = async { outcome(AssertUnwindSafe(work).catch_unwind().await) };
    tokio::spawn(within(context, work)).await.map(go_on)
}

fn go_on<T>(outcome: Outcome<T>) -> T {
    outcome.unwrap_or_else(|(panic, id)| {
        set_last_panic(id);
        resume_unwind(panic)
    })
}
