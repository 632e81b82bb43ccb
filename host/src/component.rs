//! A component: compiled once, with a new instance for every request, within limits.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{self, Poll, ready};
use std::time::Duration;

use anyhow::{anyhow, bail};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame};
use hyper::{Request, Response};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime::error::Context as _;
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store, StoreLimits, StoreLimitsBuilder,
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{self as http_types, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{
    RequestOptions, WasiBody, WasiHttp, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use crate::log::log;
use crate::variables::{self, Values};
use crate::{manifest, precompiled};

use self::interface::fermyon::spin::variables as spin_variables;

/// How many requests can be handled at a time, as in Spin. One more is answered with 500.
pub(crate) const MAX_INSTANCES: u32 = 1000;

/// How long a guest may compute before it yields to others, as in Spin.
const TICK: Duration = Duration::from_millis(10);

/// How components run: the limits of each instance, their number, and the source of their code.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// In bytes, for each memory. A guest in Rust has one.
    pub(crate) memory: usize,
    /// From the arrival of the request's header to the end of the guest's work.
    pub(crate) time: Duration,
    /// The number of instances that run at the same time, over all components.
    pub(crate) instances: u32,
    /// Whether code that was compiled ahead of time is used.
    pub(crate) precompiled: bool,
}

/// A component that is ready to answer requests.
pub(crate) struct Component {
    id: String,
    pre: ProxyPre<State>,
    environment: Vec<(String, String)>,
    variables: Arc<Values>,
    limits: Limits,
}

/// The host's state of one instance.
struct State {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    outgoing: NoOutgoingRequests,
    memory: StoreLimits,
    variables: Arc<Values>,
}

mod interface {
    wasmtime::component::bindgen!({
        inline: "
            package fermyon:spin@2.0.0;

            interface variables {
                get: func(name: string) -> result<string, error>;

                variant error {
                    invalid-name(string),
                    undefined(string),
                    provider(string),
                    other(string),
                }
            }

            world application {
                import variables;
            }
        ",
    });
}

/// Starts the engine that all components share, with memory for this many instances at a time.
///
/// # Errors
/// When the system refuses the address space that the pool needs.
pub(crate) fn engine(instances: u32) -> anyhow::Result<Engine> {
    let engine = Engine::new(&config(instances)).context("cannot start the WebAssembly engine")?;
    let clock = engine.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(TICK);
            clock.increment_epoch();
        }
    });
    Ok(engine)
}

/// An engine that only compiles. Its code runs on every processor of the given kind, which may differ from this machine's.
///
/// # Errors
/// When wasmtime does not know the processor.
pub(crate) fn compiler(target: &str) -> anyhow::Result<Engine> {
    let mut config = config(1);
    config.target(target)?;
    Ok(Engine::new(&config)?)
}

fn config(instances: u32) -> Config {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(instances)
        .total_stacks(instances)
        .total_memories(instances)
        .total_tables(2 * instances)
        .total_core_instances(4 * instances)
        .max_tables_per_module(2)
        .table_elements(100_000)
        .linear_memory_keep_resident(2 << 20)
        .table_keep_resident(512 << 10);
    let mut config = Config::new();
    config.epoch_interruption(true).allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

impl Component {
    /// Compiles a component and links what it imports.
    ///
    /// # Errors
    /// When the file cannot be read, is not a component, imports what this host
    /// does not offer, or does not answer HTTP requests.
    pub(crate) fn load(
        engine: &Engine,
        id: &str,
        manifest: manifest::Component,
        variables: Values,
        limits: Limits,
    ) -> anyhow::Result<Self> {
        let source = manifest.source.display();
        let remedy = manifest
            .build
            .as_ref()
            .map_or_else(String::new, |build| format!(": build it with `{}`", build.command_line()));
        let wasm = std::fs::read(&manifest.source)
            .with_context(|| format!("cannot read component `{id}`, {source}{remedy}"))?;
        let ahead = limits.precompiled.then(|| precompiled::load(engine, &manifest.source, &wasm));
        if let Some(Err(error)) = &ahead {
            log!("component `{id}` is compiled now: {error:#}");
        }
        let compile = || wasmtime::component::Component::from_binary(engine, &wasm);
        let component =
            ahead.and_then(Result::ok).map_or_else(compile, Ok).map_err(|error| unusable(&manifest.source, &error))?;
        let pre = linker(engine)?
            .instantiate_pre(&component)
            .with_context(|| format!("component `{id}`, {source}, imports what this host does not offer"))?;
        let pre = ProxyPre::new(pre)
            .with_context(|| format!("component `{id}`, {source}, does not export wasi:http/incoming-handler@0.2"))?;
        let environment = manifest.environment.into_iter().collect();
        Ok(Self { id: id.to_owned(), pre, environment, variables: Arc::new(variables), limits })
    }

    /// Answers one request with a new instance, which holds a permit while it works.
    ///
    /// # Errors
    /// When the guest traps, goes beyond a limit, or ends without an answer.
    pub(crate) async fn answer<B>(
        &self,
        request: Request<B>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> anyhow::Result<Response<HyperOutgoingBody>>
    where
        B: Body<Data = Bytes, Error = hyper::Error> + Send + 'static,
    {
        let mut store = Store::new(self.pre.engine(), self.state());
        store.limiter(|state| &mut state.memory);
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        let (sender, mut receiver) = oneshot::channel();
        let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
        let outparam = store.data_mut().http().new_response_outparam(sender)?;

        let pre = self.pre.clone();
        let limit = self.limits.time;
        let stopped = Arc::new(AtomicBool::new(false));
        let guest_stopped = Arc::clone(&stopped);
        let mut guest = Box::pin(async move {
            let _permit = permit;
            let work = async {
                let proxy = pre.instantiate_async(&mut store).await?;
                proxy.wasi_http_incoming_handler().call_handle(&mut store, request, outparam).await
            };
            if let Ok(outcome) = tokio::time::timeout(limit, work).await {
                return outcome.map_err(anyhow::Error::from);
            }
            // This happens while the instance still holds the unfinished body. Once it is dropped, the body would look complete.
            guest_stopped.store(true, Ordering::Release);
            bail!("it took longer than {} s (--request-timeout)", limit.as_secs())
        });
        // Most guests end when they have answered. One that continues gets its own task.
        let id = self.id.clone();
        let answer = tokio::select! {
            biased;
            outcome = &mut guest => {
                let answer = receiver.try_recv().ok();
                match outcome {
                    Err(error) if answer.is_some() => warn_of_late_failure(&id, &error),
                    outcome => outcome?,
                }
                answer
            }
            answer = &mut receiver => {
                tokio::spawn(async move {
                    if let Err(error) = guest.await {
                        warn_of_late_failure(&id, &error);
                    }
                });
                answer.ok()
            }
        };
        match answer {
            Some(Ok(response)) => Ok(response.map(|body| Unfinished { body, stopped }.boxed_unsync())),
            Some(Err(code)) => bail!("it answered with an error: {code}"),
            None => bail!("it ended without an answer"),
        }
    }

    fn state(&self) -> State {
        let mut wasi = WasiCtx::builder();
        // Standard output is only for the line with the host's address.
        wasi.stdout(std::io::stderr()).stderr(std::io::stderr()).envs(&self.environment);
        State {
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            table: ResourceTable::new(),
            outgoing: NoOutgoingRequests,
            memory: StoreLimitsBuilder::new().memory_size(self.limits.memory).trap_on_grow_failure(true).build(),
            variables: Arc::clone(&self.variables),
        }
    }
}

/// A body that does not look complete if its guest was stopped in the middle of it.
struct Unfinished {
    body: HyperOutgoingBody,
    stopped: Arc<AtomicBool>,
}

impl Body for Unfinished {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(match frame {
            None if self.stopped.load(Ordering::Acquire) => Some(Err(wasmtime_wasi_http::Error::HttpProtocolError)),
            frame => frame,
        })
    }
}

fn warn_of_late_failure(id: &str, error: &anyhow::Error) {
    eprintln!("component {id} failed after its answer had begun: {error:#}");
}

/// Why a file is not a component, in one line.
pub(crate) fn unusable(source: &Path, error: &wasmtime::Error) -> anyhow::Error {
    // The parser prints the bytes that it found on separate lines.
    let words: Vec<_> = format!("{error:#}").split_whitespace().map(str::to_owned).collect();
    anyhow!("{} is not a WebAssembly component that this host can run: {}", source.display(), words.join(" "))
}

/// Offers all of WASI 0.2 except outgoing HTTP. A guest has no access to files or the network.
fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    http_types::add_to_linker::<_, WasiHttp>(&mut linker, &http_types::LinkOptions::default(), State::http)?;
    spin_variables::add_to_linker::<_, HasSelf<_>>(&mut linker, |state: &mut State| state)?;
    Ok(linker)
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.outgoing, table: &mut self.table, ctx: &mut self.http }
    }
}

impl spin_variables::Host for State {
    fn get(&mut self, name: String) -> Result<String, spin_variables::Error> {
        variables::check_name(&name)
            .map_err(|reason| spin_variables::Error::InvalidName(format!("{name:?}: {reason}")))?;
        let value = self.variables.get(&name);
        value
            .cloned()
            .ok_or_else(|| spin_variables::Error::Undefined(format!("the component has no variable {name:?}")))
    }
}

/// The interface requires this hook, but no guest can call it.
struct NoOutgoingRequests;

impl WasiHttpHooks for NoOutgoingRequests {
    fn send_request(
        &mut self,
        _: http::Request<WasiBody>,
        _: Option<RequestOptions>,
        _: WorkOn<()>,
    ) -> WorkOn<(http::Response<WasiBody>, WorkOn<()>)> {
        Box::new(async { Err(wasmtime_wasi_http::Error::HttpRequestDenied) })
    }
}

type WorkOn<T> = Box<dyn Future<Output = wasmtime_wasi_http::Result<T>> + Send>;
