//! A proxy in memory, with the semantics of shared data that Envoy has, for tests of this room.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::environment::{
    CallId, CasMismatch, DispatchError, Environment, Level, LogField, Metric, NoRandomness, Reply, Shared,
};
use super::reason::Reason;
use super::request::Head;

/// A call that was sent.
#[derive(Clone, Debug)]
pub struct Call {
    pub cluster: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub timeout: Duration,
}

/// A proxy in memory.
#[derive(Default)]
pub struct Fake {
    data: Mutex<(HashMap<String, Shared>, u32)>,
    lose_every_cas: AtomicBool,
    before_write: Mutex<Option<(String, Interloper)>>,
    pub now: AtomicU64,
    /// How far somebody has set the wall clock forward, in nanoseconds.
    pub wall_step: AtomicU64,
    random: AtomicU64,
    pub headers: Mutex<Vec<(String, Vec<u8>)>>,
    /// By path, with dots between its parts.
    pub properties: Mutex<HashMap<String, Vec<u8>>>,
    pub body: Mutex<Vec<u8>>,
    pub calls: Mutex<Vec<Call>>,
    pub refuse_calls: Mutex<Option<DispatchError>>,
    pub replies: Mutex<Vec<Reply>>,
    pub request_resumed: AtomicBool,
    pub ticks_at_once: AtomicBool,
    pub response_headers: Mutex<Vec<(String, Vec<u8>)>>,
    pub response_body: Mutex<Vec<u8>>,
    pub counted: Mutex<Vec<Reason>>,
    pub lines: Mutex<Vec<String>>,
    pub measured: Mutex<HashMap<&'static str, i64>>,
    pub log_fields: Mutex<HashMap<&'static str, String>>,
}

/// What another worker does meanwhile.
type Interloper = Box<dyn FnOnce(&Fake) + Send>;

impl Fake {
    /// Lets another worker do something just before the next write to `key`.
    pub fn before_write(&self, key: String, interloper: impl FnOnce(&Fake) + Send + 'static) {
        *self.before_write.lock().unwrap() = Some((key, Box::new(interloper)));
    }

    pub fn lose_every_cas(&self, lose: bool) {
        self.lose_every_cas.store(lose, Ordering::Relaxed);
    }
}

impl Fake {
    /// The first value of a header of the request.
    pub fn request_header(&self, name: &str) -> Option<Vec<u8>> {
        self.request_head().first(name).map(<[u8]>::to_vec)
    }

    /// The first value of a header of the response.
    pub fn response_header(&self, name: &str) -> Option<Vec<u8>> {
        self.response_head().first(name).map(<[u8]>::to_vec)
    }

    /// How many keys of shared data there are.
    pub fn keys(&self) -> usize {
        self.data.lock().unwrap().0.len()
    }
}

fn set(headers: &Mutex<Vec<(String, Vec<u8>)>>, name: &str, value: Option<&str>) {
    let mut headers = headers.lock().unwrap();
    headers.retain(|(n, _)| n != name);
    headers.extend(value.map(|value| (name.to_owned(), value.as_bytes().to_vec())));
}

impl Environment for Fake {
    fn shared(&self, key: &str) -> Option<Shared> {
        self.data.lock().unwrap().0.get(key).cloned()
    }

    fn set_shared(&self, key: &str, value: &[u8], cas: Option<u32>) -> Result<(), CasMismatch> {
        let interloper = self.before_write.lock().unwrap().take_if(|(awaited, _)| awaited == key);
        if let Some((_, interloper)) = interloper {
            interloper(self);
        }
        let mut data = self.data.lock().unwrap();
        let known = data.0.get(key).map(|shared| shared.cas);
        if cas.is_some() && known.is_some() && (known != cas || self.lose_every_cas.load(Ordering::Relaxed)) {
            return Err(CasMismatch);
        }
        data.1 += 1;
        let cas = data.1;
        data.0.insert(key.to_owned(), Shared { value: value.to_vec(), cas });
        Ok(())
    }

    fn monotonic_nanos(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    fn unix_nanos(&self) -> u64 {
        1_800_000_000_000_000_000 + self.wall_step.load(Ordering::Relaxed)
    }

    fn fill_random(&self, buffer: &mut [u8]) -> Result<(), NoRandomness> {
        for byte in buffer {
            // Good enough to differ; credentials have statistics tests of their own.
            let seed = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            *byte = ((seed ^ (seed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56) as u8;
        }
        Ok(())
    }

    fn call(
        &self,
        cluster: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        timeout: Duration,
    ) -> Result<CallId, DispatchError> {
        if let Some(error) = *self.refuse_calls.lock().unwrap() {
            return Err(error);
        }
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut calls = self.calls.lock().unwrap();
        calls.push(Call { cluster: cluster.to_owned(), headers, body: body.to_vec(), timeout });
        Ok(CallId(calls.len() as u32))
    }

    fn tick_at_once(&self) {
        self.ticks_at_once.store(true, Ordering::Relaxed);
    }

    fn request_head(&self) -> Head {
        self.headers.lock().unwrap().iter().cloned().collect()
    }

    fn set_request_header(&self, name: &str, value: Option<&str>) {
        set(&self.headers, name, value);
    }

    fn property(&self, path: &str) -> Option<Vec<u8>> {
        self.properties.lock().unwrap().get(&path.replace('\0', ".")).cloned()
    }

    fn request_body(&self, size: usize) -> Vec<u8> {
        self.body.lock().unwrap().iter().take(size).copied().collect()
    }

    fn set_request_body(&self, _: usize, body: &[u8]) {
        *self.body.lock().unwrap() = body.to_vec();
    }

    fn resume_request(&self) {
        self.request_resumed.store(true, Ordering::Relaxed);
    }

    fn response_head(&self) -> Head {
        self.response_headers.lock().unwrap().iter().cloned().collect()
    }

    fn set_response_header(&self, name: &str, value: Option<&str>) {
        set(&self.response_headers, name, value);
    }

    fn response_body(&self, size: usize) -> Vec<u8> {
        self.response_body.lock().unwrap().iter().take(size).copied().collect()
    }

    fn set_response_body(&self, _: usize, body: &[u8]) {
        *self.response_body.lock().unwrap() = body.to_vec();
    }

    fn reply(&self, reply: &Reply) {
        self.replies.lock().unwrap().push(reply.clone());
    }

    fn count(&self, reason: Reason, times: u32) {
        self.counted.lock().unwrap().extend((0..times).map(|_| reason));
    }

    fn measure(&self, metric: Metric, by: i64) {
        *self.measured.lock().unwrap().entry(metric.name()).or_default() += by;
    }

    fn record(&self, metric: Metric, value: u64) {
        self.measured.lock().unwrap().insert(metric.name(), value as i64);
    }

    fn tell_log(&self, field: LogField, value: &str) {
        self.log_fields.lock().unwrap().insert(field.state(), value.to_owned());
    }

    fn log(&self, _: Level, line: &str) {
        self.lines.lock().unwrap().push(line.to_owned());
    }
}
