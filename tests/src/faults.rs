//! What networks, gateways and busy servers do to requests, by chance that a seed determines.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tinsmith_client::RequestOrder;

use crate::{Action, Reply, Request};

macro_rules! faults {
    ($($(#[doc = $doc:literal])* $fault:ident = $name:literal,)*) => {
        /// A kind of harm.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault {
            $($(#[doc = $doc])* $fault,)*
        }

        impl Fault {
            /// Every kind.
            pub const ALL: &[Fault] = &[$(Fault::$fault,)*];

            /// What it is called in tables.
            pub fn name(self) -> &'static str {
                match self {
                    $(Fault::$fault => $name,)*
                }
            }
        }
    };
}

faults! {
    /// [`Action::PassAndRefuse`].
    Refused = "next connections refused",
    /// [`Action::Reset`].
    ResetBefore = "reset before the server",
    /// [`Action::Drop`].
    ClosedBefore = "closed before the server",
    /// 400 without a body, as gateways make it up.
    BadRequest = "400, empty",
    /// A bill is unpaid.
    PaymentRequired = "402",
    /// Not sent in time.
    RequestTimeout = "408",
    /// In conflict with another request, for now.
    Conflict = "409",
    /// Too early.
    TooEarly = "425",
    /// Too many requests.
    TooMany = "429",
    /// Too many requests, with a time in seconds.
    TooManySeconds = "429, Retry-After",
    /// Too many requests, with a date.
    TooManyDate = "429, Retry-After a date",
    /// Too many requests, with a time in milliseconds.
    TooManyMillis = "429, retry-after-ms",
    /// The server fails.
    Failure = "500, empty",
    /// The server fails, and says so in JSON.
    FailureJson = "500, JSON",
    /// A gateway's page.
    BadGatewayPage = "502, a page",
    /// A gateway's page.
    UnavailablePage = "503, a page",
    /// The server is busy, with a time in seconds.
    Unavailable = "503, Retry-After",
    /// The server was too slow for a gateway.
    GatewayTimeout = "504, empty",
    /// [`Action::ResetAfter`].
    ResetAfter = "reset after the server",
    /// [`Action::CutAfter`].
    ClosedAfter = "closed after the server",
    /// [`Action::HalfClose`].
    HalfClosed = "half-closed after the server",
    /// [`Action::HalfHead`].
    HalfHead = "answer cut in its head",
    /// [`Action::HalfBody`].
    HalfBody = "answer cut in its body",
    /// [`Action::HalfAnswer`].
    HalfAnswer = "answer cut at its last byte",
    /// [`Action::Drip`].
    Dripped = "answer in drops",
    /// [`Action::PassAndClose`].
    IdleClosed = "idle connection closed",
    /// [`Action::Twice`].
    Twice = "sent twice",
    /// [`Action::TwiceAtOnce`].
    TwiceAtOnce = "sent twice at once",
    /// [`Action::AgainLater`].
    AgainLater = "sent again later",
    /// 408 in place of the answer.
    RequestTimeoutAfter = "408 after the server",
    /// 429 in place of the answer.
    TooManyAfter = "429 after the server",
    /// 500 in place of the answer.
    FailureAfter = "500 after the server",
    /// A gateway's page in place of the answer.
    BadGatewayAfter = "502, a page, after the server",
    /// 504 in place of the answer.
    GatewayTimeoutAfter = "504 after the server",
    /// A page that claims success; the server has seen nothing.
    FalsePage = "200 with a page",
    /// A page that claims success, in place of the answer.
    FalsePageAfter = "200 with a page after the server",
    /// 200 without a body, in place of the answer.
    FalseEmpty = "200, empty, after the server",
    /// [`Action::Shortened`].
    FalseShort = "200 with half of the answer",
}

impl Fault {
    /// How long it asks the client to wait. No two ask for the same, and no client waits as long by
    /// itself.
    pub fn asked_wait(self) -> Option<Duration> {
        match self {
            Fault::TooManySeconds => Some(Duration::from_secs(13)),
            Fault::TooManyDate => Some(Duration::from_secs(17)),
            Fault::TooManyMillis => Some(Duration::from_millis(11_250)),
            Fault::Unavailable => Some(Duration::from_secs(19)),
            _ => None,
        }
    }

    /// Whether it is an answer of success that says nothing.
    fn is_false_success(self) -> bool {
        use Fault::{FalseEmpty, FalsePage, FalsePageAfter, FalseShort};
        matches!(self, FalsePage | FalsePageAfter | FalseEmpty | FalseShort)
    }

    /// Whether a client can know from it that the server has done nothing, or need not know.
    fn is_certain(self) -> bool {
        use Fault::{
            Conflict, Dripped, PaymentRequired, Refused, TooEarly, TooMany, TooManyDate,
            TooManyMillis, TooManySeconds, Unavailable,
        };
        matches!(
            self,
            Refused
                | PaymentRequired
                | Conflict
                | TooEarly
                | TooMany
                | TooManySeconds
                | TooManyDate
                | TooManyMillis
                | Unavailable
                | Dripped
        )
    }

    fn action(self, drip_pause: Duration) -> Action {
        let instead = |status| Action::Instead(Reply::empty(status));
        let after = |status| Action::After(Reply::empty(status));
        let asking =
            |status, name, value: String| Action::Instead(Reply::empty(status).header(name, value));
        let seconds = self.asked_wait().unwrap_or_default().as_secs();
        match self {
            Fault::Refused => Action::PassAndRefuse,
            Fault::ResetBefore => Action::Reset,
            Fault::ClosedBefore => Action::Drop,
            Fault::BadRequest => instead(400),
            Fault::PaymentRequired => instead(402),
            Fault::RequestTimeout => instead(408),
            Fault::Conflict => instead(409),
            Fault::TooEarly => instead(425),
            Fault::TooMany => instead(429),
            Fault::TooManySeconds => asking(429, "Retry-After", seconds.to_string()),
            Fault::TooManyDate => {
                let now = SystemTime::now();
                let until = httpdate::fmt_http_date(now + Duration::from_secs(seconds));
                let reply = Reply::empty(429).header("Date", httpdate::fmt_http_date(now));
                Action::Instead(reply.header("Retry-After", until))
            }
            Fault::TooManyMillis => asking(429, "Retry-After-Ms", "11250".to_owned()),
            Fault::Failure => instead(500),
            Fault::FailureJson => {
                let body = json!({"detail": "out of memory"});
                Action::Instead(Reply { status: 500, ..Reply::json(&body) })
            }
            Fault::BadGatewayPage => Action::Instead(Reply::page(502)),
            Fault::UnavailablePage => Action::Instead(Reply::page(503)),
            Fault::Unavailable => asking(503, "Retry-After", seconds.to_string()),
            Fault::GatewayTimeout => instead(504),
            Fault::ResetAfter => Action::ResetAfter,
            Fault::ClosedAfter => Action::CutAfter,
            Fault::HalfClosed => Action::HalfClose,
            Fault::HalfHead => Action::HalfHead,
            Fault::HalfBody => Action::HalfBody,
            Fault::HalfAnswer => Action::HalfAnswer,
            Fault::Dripped => Action::Drip(drip_pause),
            Fault::IdleClosed => Action::PassAndClose,
            Fault::Twice => Action::Twice,
            Fault::TwiceAtOnce => Action::TwiceAtOnce,
            Fault::AgainLater => Action::AgainLater,
            Fault::RequestTimeoutAfter => after(408),
            Fault::TooManyAfter => after(429),
            Fault::FailureAfter => after(500),
            Fault::BadGatewayAfter => Action::After(Reply::page(502)),
            Fault::GatewayTimeoutAfter => after(504),
            Fault::FalsePage => Action::Instead(Reply::page(200)),
            Fault::FalsePageAfter => Action::After(Reply::page(200)),
            Fault::FalseEmpty => after(200),
            Fault::FalseShort => Action::Shortened,
        }
    }
}

/// How much harm is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Weather {
    /// The share of requests that meet a fault.
    pub rate: f64,
    /// The same seed does the same harm to the same requests.
    pub seed: u64,
    /// By what the client thinks that the server orders requests: to a server that goes by arrival
    /// nothing is done of which a client could not know whether it may repeat a request.
    pub order: RequestOrder,
    /// Between the pieces of an answer that comes in drops.
    pub drip_pause: Duration,
}

/// What was done.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// All that arrived at the proxy, repetitions included.
    pub requests: u64,
    /// How many of them met what.
    pub faults: BTreeMap<Fault, u64>,
    /// How often waits were asked for of calls that obey.
    pub asked_waits: BTreeMap<Duration, u64>,
    /// How often the trainer was handed each request that it executes, by a digest.
    deliveries: HashMap<u64, u32>,
}

impl Tally {
    /// How many requests for training, saving and the like the trainer was handed several times.
    pub fn delivered_again(&self) -> usize {
        self.deliveries.values().filter(|&&times| times > 1).count()
    }
}

/// The calls that a server executes, each once.
const EXECUTED: [&str; 7] = [
    "create_model",
    "forward",
    "forward_backward",
    "optim_step",
    "save_weights",
    "save_weights_for_sampler",
    "load_weights",
];
/// Those whose 409 says that a name is taken.
const SAVES: [&str; 2] = ["save_weights", "save_weights_for_sampler"];
/// Those that are asked again and again, at times of their own.
const POLLS: [&str; 2] = ["retrieve_future", "retrieve_futures"];
/// The first ones to a server.
const STARTING: [&str; 2] = ["config", "create_session"];
/// Those that come from threads in the background, and are not repeated.
const IN_BACKGROUND: [&str; 4] =
    ["session_heartbeat", "dynamic_config", "cancel_future", "telemetry"];

/// A rule for a [`Proxy`](crate::Proxy), and what it has done so far.
///
/// Whether and how a request is harmed depends on the seed, the name of the call, how many other
/// bodies came before it under that name, and how often this one came: not on the order of threads,
/// nor on ids, which are others each time.
pub fn faults(weather: Weather) -> (impl FnMut(&Request) -> Action + Send, Arc<Mutex<Tally>>) {
    let tally = Arc::new(Mutex::new(Tally::default()));
    let shared = tally.clone();
    // Of each body its place among those of the call, and how often it has come.
    let mut places: HashMap<u64, (u64, u64)> = HashMap::new();
    let mut bodies: HashMap<String, u64> = HashMap::new();
    let rule = move |request: &Request| {
        let call = request.call();
        let body = digest(&(&request.target, &request.body));
        let place = places.entry(body).or_insert_with(|| {
            let next = bodies.entry(call.to_owned()).or_default();
            *next += 1;
            (*next, 0)
        });
        place.1 += 1;
        let mut dice = ChaCha8Rng::seed_from_u64(weather.seed);
        dice.set_stream(digest(&(call, *place)));
        let fault = weather.draw(call, &mut dice);
        let action = fault.map_or(Action::Pass, |fault| fault.action(weather.drip_pause));

        let mut tally = lock(&shared);
        tally.requests += 1;
        if EXECUTED.contains(&call) {
            *tally.deliveries.entry(body).or_default() += action.deliveries();
        }
        let has_own_waits = POLLS.contains(&call) || IN_BACKGROUND.contains(&call);
        if let Some(fault) = fault {
            *tally.faults.entry(fault).or_default() += 1;
            if let Some(wait) = fault.asked_wait().filter(|_| !has_own_waits) {
                *tally.asked_waits.entry(wait).or_default() += 1;
            }
        }
        action
    };
    (rule, tally)
}

impl Weather {
    fn draw(&self, call: &str, dice: &mut impl Rng) -> Option<Fault> {
        if !dice.random_bool(self.rate) {
            return None;
        }
        let possible: Vec<Fault> =
            Fault::ALL.iter().copied().filter(|&fault| self.has(fault, call)).collect();
        Some(possible[dice.random_range(0..possible.len())])
    }

    fn has(&self, fault: Fault, call: &str) -> bool {
        let is_by_arrival = self.order == RequestOrder::ByArrival;
        if is_by_arrival && EXECUTED.contains(&call) {
            return fault.is_certain() && !(fault == Fault::Conflict && SAVES.contains(&call));
        }
        match fault {
            // They come from other threads, whose connections are no place to shut the door at: who
            // is just coming in would be thrown out, and could not know what became of a request.
            Fault::Refused if is_by_arrival && IN_BACKGROUND.contains(&call) => false,
            // The next request may be on its way already, over the same connection.
            Fault::IdleClosed if is_by_arrival => false,
            Fault::Conflict if SAVES.contains(&call) => false,
            // What answers with a page from the start is taken for what it is: another server.
            fault if fault.is_false_success() => !STARTING.contains(&call),
            _ => true,
        }
    }
}

fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weather(order: RequestOrder) -> Weather {
        Weather { rate: 0.5, seed: 7, order, drip_pause: Duration::ZERO }
    }

    fn request(call: &str, body: usize) -> Request {
        let target = format!("POST /api/v1/{call}");
        Request { target, headers: HashMap::new(), body: body.to_string().into_bytes() }
    }

    /// A date goes on.
    fn shown(action: &Action) -> String {
        let text = format!("{action:?}");
        if text.contains("Date") { "dated".to_owned() } else { text }
    }

    #[test]
    fn a_request_meets_the_same_fault_whatever_comes_between() {
        let (mut alone, _) = faults(weather(RequestOrder::BySequence));
        let (mut among, _) = faults(weather(RequestOrder::BySequence));
        let mut met = 0;
        for body in 0..200 {
            among(&request("session_heartbeat", body));
            // Ids are others in every run.
            let (a, b) =
                (alone(&request("forward", body)), among(&request("forward", body + 1_000)));
            assert_eq!(shown(&a), shown(&b), "{body}");
            met += usize::from(a != Action::Pass);
        }
        assert!((70..130).contains(&met), "{met} of 200 at a rate of one half");
    }

    #[test]
    fn a_server_that_goes_by_arrival_gets_nothing_of_which_a_client_could_not_know() {
        let (mut rule, tally) = faults(weather(RequestOrder::ByArrival));
        for body in 0..400 {
            let action = rule(&request("optim_step", body));
            let is_refusal = |status| [402, 409, 425, 429, 503].contains(&status);
            match action {
                Action::Pass | Action::PassAndRefuse | Action::Drip(_) => {}
                Action::Instead(reply) => assert!(is_refusal(reply.status), "{reply:?}"),
                other => panic!("{other:?}"),
            }
        }
        let tally = lock(&tally);
        assert_eq!((tally.requests, tally.delivered_again()), (400, 0));
        assert_eq!(tally.faults.len(), 10);
    }
}
