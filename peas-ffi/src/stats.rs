//! Statistics as JSON. Fields are only ever added; `docs/STATS.md` lists them.

use crate::failure::Failure;
use crate::host::Host;
use crate::types::peas_job;
use serde_json::{Value, json};

/// Of one job, or of the engine (job 0) with its running jobs.
pub(crate) fn stats(host: &Host, job: peas_job) -> Result<String, Failure> {
    if job != 0 {
        return Ok(of_job(host, job)?.to_string());
    }
    let running: Vec<peas_job> = host.board.lock().jobs.iter().filter(|(_, job)| job.ended.is_none()).map(|(id, _)| *id).collect();
    // A job may end between the two looks: then it is not running.
    let jobs: Vec<Value> = running.into_iter().filter_map(|id| of_job(host, id).ok()).collect();
    let (upload, download) = host.engine.limits();
    let text = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "peer_id": host.engine.peer_id().to_string(),
        "listen": host.engine.listen_addr().map(|addr| addr.to_string()),
        "upload_limit": upload,
        "download_limit": download,
        "jobs": jobs,
    });
    Ok(text.to_string())
}

fn of_job(host: &Host, id: peas_job) -> Result<Value, Failure> {
    let (info, session) = {
        let mut state = host.board.lock();
        let job = state.job(id)?;
        (job.info(), job.session.clone())
    };
    // The core's own numbers, whatever it counts, beside those of peas_info.
    let core = session.and_then(|session| serde_json::from_str::<Value>(&session.stats_json()).ok());
    Ok(json!({
        "job": id,
        "verb": info.verb,
        "state": info.state,
        "status": info.status,
        "complete": info.complete == 1,
        "paused": info.paused,
        "pieces_done": info.pieces_done,
        "pieces_total": info.pieces_total,
        "pieces_bad": info.pieces_bad,
        "bytes_done": info.bytes_done,
        "bytes_total": info.bytes_total,
        "bytes_reused": info.bytes_reused,
        "bytes_from_origin": info.bytes_from_origin,
        "bytes_from_peers": info.bytes_from_peers,
        "bytes_from_web": info.bytes_from_web,
        "bytes_wasted": info.bytes_wasted,
        "bytes_sent": info.bytes_sent,
        "rate_received": info.rate_received,
        "rate_sent": info.rate_sent,
        "remaining_ms": info.remaining_ms,
        "peers": info.peers,
        "members": info.members,
        "origin_linked": info.origin_linked == 1,
        "session": core,
    }))
}
