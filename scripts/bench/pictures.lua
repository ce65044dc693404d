-- wrk: POST the pictures of BENCH_PICTURES in turn, as curl -F image=@… would; print the result as JSON.
local requests, turn = {}, 0

function init(_)
  local boundary = "----------------------------d74496d66958873e"
  for path in io.popen("ls " .. os.getenv("BENCH_PICTURES") .. "/*.jpg"):lines() do
    local file = io.open(path, "rb")
    local body = "--" .. boundary .. "\r\n"
      .. 'Content-Disposition: form-data; name="image"; filename="picture.jpg"\r\n'
      .. "Content-Type: image/jpeg\r\n\r\n" .. file:read("*a") .. "\r\n--" .. boundary .. "--\r\n"
    file:close()
    local headers = {["Content-Type"] = "multipart/form-data; boundary=" .. boundary}
    requests[#requests + 1] = wrk.format("POST", nil, headers, body)
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
