//! What a server wants of its clients.

use serde::{Deserialize, Serialize};

use crate::tolerant::{finite, with_defaults};

/// Body of `POST /api/v1/client/config` and of `POST /api/v1/client/dynamic_config`.
///
/// ```
/// use tinsmith_wire::{ClientConfigRequest, json};
/// let body = ClientConfigRequest { sdk_version: "0.38.0".into() };
/// assert_eq!(json::to_vec(&body)?, br#"{"sdk_version":"0.38.0"}"#);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientConfigRequest {
    /// Version of the client; a server may answer by it.
    pub sdk_version: String,
}

with_defaults! {
    /// Reply to `POST /api/v1/client/config`: limits and switches, the defaults for what a server
    /// leaves out.
    ///
    /// ```
    /// use tinsmith_wire::{ClientConfig, json};
    /// let config: ClientConfig = json::from_slice(br#"{"fwdbwd_max_chunk_len":2,"later":[]}"#)?;
    /// assert_eq!((config.fwdbwd_max_chunk_len, config.fwdbwd_max_chunk_bytes_count), (2, 5_000_000));
    /// # Ok::<(), tinsmith_wire::Error>(())
    /// ```
    pub struct ClientConfig {
        /// Most data in a forward or forward_backward request.
        pub fwdbwd_max_chunk_len: usize = 1024,
        /// Most estimated bytes in such a request.
        pub fwdbwd_max_chunk_bytes_count: usize = 5_000_000,
        /// Whether the requests of one batch may be sent at once, the first one last.
        pub parallel_fwdbwd_chunks: bool = true,
        /// Whether protobuf bodies of these requests are to be compressed with zstd.
        pub proto_compress_fwdbwd: bool = false,
        /// Most bytes of these requests on their way at once.
        pub fwdbwd_dispatch_bytes_semaphore_size: u64 = 50_000_000,
        /// Most bytes of results on their way at once.
        pub inflight_response_bytes_semaphore_size: u64 = 52_428_800,
        /// Most bytes of sample requests on their way at once.
        pub sample_dispatch_bytes_semaphore_size: u64 = 10_485_760,
        /// Most samples under way at once.
        pub sample_max_concurrent_requests: u32 = 2000,
        /// Whether a failed sample stays failed.
        pub sample_no_retries: bool = false,
        /// Whether samples are waited for by `retrieve_futures`.
        pub sample_use_retrieve_futures: bool = false,
        /// Whether a copy of a sampling client asks the server for its number.
        pub sample_join_sampling_session: bool = false,
        /// Whether to give up when no sample completes for two hours.
        pub sample_enable_stuck_detection: bool = true,
        /// Whether the server evaluates custom losses itself.
        pub custom_loss_server_side: bool = false,
        /// Whether the API key is to be exchanged for a token first.
        pub pjwt_auth_enabled: bool = false,
        /// Where the key is to come from when several sources have one: `api_key` or
        /// `credential_cmd`.
        pub credential_default_source: String = "api_key".to_owned(),
        /// Longest pause over unpaid bills, in seconds.
        #[serde(serialize_with = "finite")]
        pub billing_exception_max_pause_duration_sec: f64 = 3600.0,
    }
}

with_defaults! {
    /// Reply to `POST /api/v1/client/dynamic_config`: what may change during a session.
    ///
    /// ```
    /// use tinsmith_wire::{DynamicConfig, json};
    /// let it: DynamicConfig = json::from_slice(br#"{"sample_cancel_enabled":true}"#)?;
    /// assert_eq!((it.sample_cancel_enabled, it.refresh_interval_sec), (true, 300.0));
    /// # Ok::<(), tinsmith_wire::Error>(())
    /// ```
    pub struct DynamicConfig {
        /// Seconds until it is to be asked for again; at least 10.
        #[serde(serialize_with = "finite")]
        pub refresh_interval_sec: f64 = 300.0,
        /// Whether samples that nobody waits for any longer are to be cancelled.
        pub sample_cancel_enabled: bool = false,
        /// Most cancellations at once.
        pub sample_cancel_max_batch_size: u32 = 64,
    }
}

/// Body of `POST /api/v1/auth/token`: nothing; the key is in the header.
///
/// ```
/// use tinsmith_wire::{AuthTokenRequest, json};
/// let body = AuthTokenRequest {};
/// assert_eq!(json::to_vec(&body)?, br#"{}"#);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthTokenRequest {}

/// Reply to auth/token.
///
/// ```
/// use tinsmith_wire::{AuthTokenResponse, json};
/// let it: AuthTokenResponse = json::from_slice(br#"{"jwt":"eyJ.eyJ.x"}"#)?;
/// assert_eq!(it.jwt, "eyJ.eyJ.x");
/// assert!(!format!("{it:?}").contains("eyJ"));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthTokenResponse {
    /// The token, a JWT, to send in place of the key. A secret: debug output leaves it out.
    pub jwt: String,
}

impl std::fmt::Debug for AuthTokenResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthTokenResponse { jwt: (secret) }")
    }
}
