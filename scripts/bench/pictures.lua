-- wrk: POST the bodies of BENCH_BODIES in turn, with the headers of wrk -H; print the result as JSON.
local requests, turn = {}, 0

function init(_)
  for path in io.popen("ls -d " .. os.getenv("BENCH_BODIES") .. "/*"):lines() do
    local file = io.open(path, "rb")
    requests[#requests + 1] = wrk.format("POST", nil, nil, file:read("*a"))
    file:close()
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %f, "not_2xx": %d, "failed": %d, "p50_ms": %f, "p95_ms": %f, "p99_ms": %f}\n',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3))
end
