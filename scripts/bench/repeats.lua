-- wrk: POST the bodies of BENCH_BODIES in turn, a share BENCH_NEW of them as images that were never sent before.
-- A mark after the end of a JPEG makes other bytes of it, but not other pixels; BENCH_TAIL bytes follow it in the body.
local bodies, sent, threads = {}, 0, 0
local share, known = tonumber(os.getenv("BENCH_NEW")), 8
local tail, run = tonumber(os.getenv("BENCH_TAIL")), os.getenv("BENCH_RUN")
dofile(os.getenv("BENCH_REPORT"))  -- its function "done" prints the result

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init(_)
  for path in io.popen("ls -d " .. os.getenv("BENCH_BODIES") .. "/*"):lines() do
    local file = io.open(path, "rb")
    bodies[#bodies + 1] = file:read("*a")
    file:close()
  end
end

function request()
  local before = math.floor(sent * share)
  sent = sent + 1
  if math.floor(sent * share) == before then
    return wrk.format("POST", nil, nil, bodies[sent % math.min(known, #bodies) + 1])
  end
  local body = bodies[sent % #bodies + 1]
  local mark = string.format("%s-%d-%012d", run, number, sent)
  return wrk.format("POST", nil, nil, body:sub(1, #body - tail) .. mark .. body:sub(-tail))
end
