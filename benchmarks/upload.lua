-- Uploads of one radiograph by wrk, over and over, from as many connections as it is told:
--   wrk --threads 1 --connections 50 --duration 60s --timeout 120s --script benchmarks/upload.lua \
--       http://127.0.0.1:8000 -- radiograph.jpg
-- prints how many uploads were answered with which status, and wrk's own latencies.

local answers = {}
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(arguments)
  local file = assert(io.open(arguments[1], "rb"), "upload.lua: give a radiograph after --")
  local body = '--frame\r\nContent-Disposition: form-data; name="file"; filename="radiograph"\r\n\r\n'
    .. file:read("a") .. "\r\n--frame--\r\n"
  file:close()
  statuses = {}
  upload = wrk.format("POST", "/api/v1/predictions", { ["Content-Type"] = "multipart/form-data; boundary=frame" }, body)
end

function request()
  return upload
end

function response(status)
  statuses[status] = (statuses[status] or 0) + 1
end

function done(summary)
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("statuses")) do
      answers[status] = (answers[status] or 0) + count
    end
  end
  for status, count in pairs(answers) do
    print(string.format("status %d: %d, %.2f per second", status, count, count / (summary.duration / 1e6)))
  end
  local lost = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  print("lost: " .. lost)
end
