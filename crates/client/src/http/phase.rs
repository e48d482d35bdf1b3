//! What the HTTP library does not tell or do: whether anything of a request has left this machine,
//! the answer of a server that did not want to read the whole request, headers that no log may
//! show, and a wait that ends early.
//!
//! The library runs a request on the thread that asks for it.

use std::{
    cell::RefCell,
    fmt, io,
    time::{Duration, Instant},
};

use ureq::unversioned::{
    resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
    transport::{Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport},
};
use ureq::{config::Config, http::Uri};

use crate::{
    CancelToken,
    http::{masked::MaskedInput, message::Watch},
};

/// Between two looks whether an exchange is cancelled.
const SLICE: Duration = Duration::from_millis(400);

/// What went wrong before the first byte of a request left.
#[derive(Debug)]
pub(crate) struct Unsent(pub ureq::Error);

impl fmt::Display for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Unsent {}

fn unsent(error: ureq::Error) -> ureq::Error {
    match error {
        // From a connection within a connection: the one to a proxy.
        ureq::Error::Other(other) if other.is::<Unsent>() => ureq::Error::Other(other),
        error => ureq::Error::Other(Box::new(Unsent(error))),
    }
}

/// What an exchange on this thread has beyond what the library is told.
#[derive(Debug, Default)]
struct Exchange {
    /// Header lines of its request.
    secret_lines: Vec<u8>,
    cancel: Option<CancelToken>,
    watch: Option<Watch>,
    hides_answer: bool,
    /// Whether a connection is being made, so that one within it is that to a proxy, which is told
    /// no secrets.
    is_connecting: bool,
}

thread_local! {
    static EXCHANGE: RefCell<Exchange> = RefCell::default();
}

/// Lets `run` send a request with these headers, which appear in no log of the library: they are
/// written to the connection after it has logged what it writes itself. The body of a hidden answer
/// comes masked. It waits for no byte any longer once it is cancelled.
pub(crate) fn exchange<T>(
    secret_headers: &[(String, String)],
    cancel: Option<&CancelToken>,
    watch: Option<Watch>,
    hides_answer: bool,
    run: impl FnOnce() -> T,
) -> T {
    EXCHANGE.with_borrow_mut(|exchange| {
        exchange.secret_lines.clear();
        for (name, value) in secret_headers {
            exchange.secret_lines.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        exchange.cancel = cancel.cloned();
        exchange.watch = watch;
        exchange.hides_answer = hides_answer;
    });
    let done = run();
    EXCHANGE.take();
    done
}

/// A [`CancelToken`] ended the exchange.
#[derive(Debug)]
pub(crate) struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cancelled")
    }
}

impl std::error::Error for Cancelled {}

/// Resolves names as the library does.
#[derive(Debug, Default)]
pub(crate) struct PhasedResolver(DefaultResolver);

impl Resolver for PhasedResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.0.resolve(uri, config, timeout).map_err(unsent)
    }
}

/// Connects as the library does: TCP, proxies, TLS.
#[derive(Debug, Default)]
pub(crate) struct PhasedConnector(DefaultConnector);

impl Connector for PhasedConnector {
    type Out = Phased;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<()>,
    ) -> Result<Option<Phased>, ureq::Error> {
        let set = |is_connecting| {
            EXCHANGE.with_borrow_mut(|it| std::mem::replace(&mut it.is_connecting, is_connecting))
        };
        let is_to_proxy = set(true);
        let inner = self.0.connect(details, chained);
        set(is_to_proxy);
        let phased =
            |inner| Phased { inner, is_to_proxy, is_at_head: true, broken: None, masked: None };
        Ok(inner.map_err(unsent)?.map(phased))
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Phased {
    inner: Box<dyn Transport>,
    is_to_proxy: bool,
    /// Whether what is sent next begins a request.
    is_at_head: bool,
    /// Why nothing more can be sent. The server may have answered before it closed.
    broken: Option<io::Error>,
    /// What was read of an answer that is hidden.
    masked: Option<MaskedInput>,
}

impl Phased {
    /// Puts the secret headers after the request line, which is what is sent first.
    fn complete_head(&mut self, amount: usize) -> io::Result<usize> {
        let output = self.inner.buffers().output();
        let line = output[..amount].windows(2).position(|two| two == b"\r\n");
        let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "the headers are too long");
        let at = line.map(|end| end + 2).ok_or_else(too_long)?;
        EXCHANGE.with_borrow(|Exchange { secret_lines: lines, .. }| {
            let after = amount + lines.len();
            if after > output.len() {
                return Err(too_long());
            }
            output.copy_within(at..amount, at + lines.len());
            output[at..at + lines.len()].copy_from_slice(lines);
            Ok(after)
        })
    }

    /// Waits in slices, to look in between whether the exchange is cancelled, and to tell how long
    /// it has been waiting.
    fn await_or_cancel(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let (cancel, watch) = EXCHANGE.with_borrow(|it| (it.cancel.clone(), it.watch.clone()));
        if cancel.is_none() && watch.is_none() {
            return self.inner.await_input(timeout);
        }
        let whole = timeout.for_read();
        let start = Instant::now();
        let end = start.checked_add(*whole.after).unwrap_or_else(far_away);
        loop {
            if cancel.as_ref().is_some_and(CancelToken::is_cancelled) {
                return Err(ureq::Error::Other(Box::new(Cancelled)));
            }
            if let Some(Watch(tell)) = &watch {
                tell(start.elapsed());
            }
            let left = end.saturating_duration_since(Instant::now());
            let slice = NextTimeout { after: left.min(SLICE).into(), per_read: None, ..whole };
            match self.inner.await_input(slice) {
                Err(ureq::Error::Timeout(_)) if left > SLICE => {}
                done => return done,
            }
        }
    }
}

fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(1 << 30)
}

impl Transport for Phased {
    fn buffers(&mut self) -> &mut dyn Buffers {
        match self.masked {
            Some(_) => self,
            None => self.inner.buffers(),
        }
    }

    fn transmit_output(
        &mut self,
        mut amount: usize,
        timeout: NextTimeout,
    ) -> Result<(), ureq::Error> {
        if self.is_at_head && amount > 0 && !self.is_to_proxy {
            self.is_at_head = false;
            let hides_answer = EXCHANGE.with_borrow(|exchange| exchange.hides_answer);
            self.masked = hides_answer.then(MaskedInput::default);
            amount = self.complete_head(amount).map_err(|error| unsent(error.into()))?;
        }
        if self.broken.is_some() {
            return Ok(());
        }
        match self.inner.transmit_output(amount, timeout) {
            Err(ureq::Error::Io(error)) if is_closed(&error) => {
                self.broken = Some(error);
                Ok(())
            }
            sent => sent,
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.is_at_head = true;
        match (self.await_or_cancel(timeout), self.broken.take()) {
            (Ok(true), broken) => {
                self.broken = broken;
                if let Some(masked) = &mut self.masked {
                    masked.take(&mut *self.inner);
                }
                Ok(true)
            }
            (_, Some(broken)) => Err(broken.into()),
            (failed, None) => failed,
        }
    }

    fn is_open(&mut self) -> bool {
        self.broken.is_none() && self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

/// Of a hidden answer: what was read comes from the mask, all else is the connection's.
impl Buffers for Phased {
    fn output(&mut self) -> &mut [u8] {
        self.inner.buffers().output()
    }

    fn input(&self) -> &[u8] {
        self.masked.as_ref().map_or(&[], MaskedInput::bytes)
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        self.inner.buffers().input_append_buf()
    }

    fn input_appended(&mut self, amount: usize) {
        self.inner.buffers().input_appended(amount);
    }

    fn input_consume(&mut self, amount: usize) {
        if let Some(masked) = &mut self.masked {
            masked.consume(amount);
        }
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        self.inner.buffers().tmp_and_output()
    }

    fn can_use_input(&self) -> bool {
        self.masked.as_ref().is_some_and(MaskedInput::can_be_used)
    }
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}
