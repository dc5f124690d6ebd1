-- wrk: sends the JSON in the file that INFERD_BODY names, and counts answers that are not 200.
local path = os.getenv("INFERD_BODY") or "body.json"
local file = assert(io.open(path, "rb"), path .. " cannot be read; set INFERD_BODY")
wrk.method = "POST"
wrk.body = file:read("*a")
wrk.headers["Content-Type"] = "application/json"
file:close()
