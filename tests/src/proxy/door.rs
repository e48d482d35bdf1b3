//! A listener that can be shut for a while, so that connections are refused.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

/// How many naps of the client's a door stays shut.
const SHUT_FOR: u32 = 2;
/// Below the ports that systems give to outgoing connections: while nothing listens on one of
/// those, a client that tries it again and again may end up connected to itself.
const PORTS: std::ops::Range<u16> = 18_000..30_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Shutting,
    /// Since so many naps.
    Shut(u32),
    Opening,
}

#[derive(Debug)]
pub struct Door {
    address: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

impl Door {
    /// A door on a free port of the loopback.
    pub fn new() -> io::Result<(Self, TcpListener)> {
        let listener = listener()?;
        let address = listener.local_addr()?;
        let door = Door { address, state: Mutex::new(State::Open), changed: Condvar::new() };
        Ok((door, listener))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Hands every connection to `serve`, for good.
    pub fn keep(&self, first: TcpListener, serve: impl Fn(TcpStream)) {
        let mut listener = first;
        loop {
            for client in listener.incoming().flatten() {
                serve(client);
                if *self.lock() == State::Shutting {
                    break;
                }
            }
            // Those that have come in meanwhile are not to be thrown out.
            if listener.set_nonblocking(true).is_ok() {
                while let Ok((client, _)) = listener.accept() {
                    if client.set_nonblocking(false).is_ok() {
                        serve(client);
                    }
                }
            }
            drop(listener);
            self.set(State::Shut(0));
            drop(self.wait_while(|state| state != State::Opening));
            listener = loop {
                match TcpListener::bind(self.address) {
                    Ok(listener) => break listener,
                    // Someone else may hold the port for a moment.
                    Err(_) => thread::yield_now(),
                }
            };
            self.set(State::Open);
        }
    }

    /// Refuses connections from when this returns until the second [`tick`](Self::tick).
    pub fn shut(&self) {
        {
            let mut state = self.wait_while(|state| state == State::Opening);
            if *state != State::Open {
                return;
            }
            *state = State::Shutting;
        }
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect(self.address);
        drop(self.wait_while(|state| state == State::Shutting));
    }

    /// Lets time pass for a door that is shut.
    pub fn tick(&self) {
        let mut state = self.lock();
        match *state {
            State::Shut(ticks) if ticks + 1 < SHUT_FOR => *state = State::Shut(ticks + 1),
            State::Shut(_) => {
                *state = State::Opening;
                drop(state);
                self.changed.notify_all();
                drop(self.wait_while(|state| state == State::Opening));
            }
            State::Open | State::Shutting | State::Opening => {}
        }
    }

    fn set(&self, state: State) {
        *self.lock() = state;
        self.changed.notify_all();
    }

    fn wait_while(&self, is_so: impl Fn(State) -> bool) -> MutexGuard<'_, State> {
        let state = self.changed.wait_while(self.lock(), |state| is_so(*state));
        state.unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A listener on a port that no outgoing connection is given by chance, and that no other call of
/// this process gets.
///
/// # Errors
/// When there is no such port left.
pub fn listener() -> io::Result<TcpListener> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes begin at different places, so that they seldom meet.
    let start = std::process::id().wrapping_mul(97);
    let ports = PORTS.len() as u32;
    for _ in 0..ports {
        let place = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % ports;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, PORTS.start + place as u16)) {
            return Ok(listener);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}
