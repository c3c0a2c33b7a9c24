-- Asks Tollgate whether HAProxy may let a call through (see haproxy.cfg).

-- Where Tollgate is.
local VERIFY = "http://127.0.0.1:8080/api/verify"
local TIMEOUT_MS = 10000

local IDENTITY = { "x-merchant-id", "x-api-key-id", "x-client-id", "x-environment", "x-token-expires", "x-scopes" }
local CREDENTIALS = { "x-api-key", "access-token", "authorization" }
-- The headers of a refusal that the caller gets, in addition to status and body.
local SHOWN = { "content-type", "www-authenticate", "cache-control", "retry-after", "x-request-id" }

local UNAVAILABLE = '{"httpStatus":false,"error":"temporarily_unavailable",'
    .. '"error_description":"the service cannot answer now; try again",'
    .. '"status":{"statusCode":503,"statusDescription":"the service cannot answer now; try again"}}'

-- All values of a header, so that Tollgate refuses a header that was sent twice.
local function values(headers, name)
    local all = {}
    for _, value in pairs(headers[name] or {}) do
        all[#all + 1] = value
    end
    return all[1] and all
end

local function unavailable(txn)
    local reply = txn:reply({ status = 503 })
    reply:add_header("Content-Type", "application/json")
    reply:add_header("Cache-Control", "no-store")
    reply:add_header("Retry-After", "1")
    reply:set_body(UNAVAILABLE)
    txn:done(reply)
end

core.register_action("tollgate", { "http-req" }, function(txn)
    local sent = txn.http:req_get_headers()
    -- Only the address of the connection, and nothing that the caller sent.
    local headers = { ["x-forwarded-for"] = { txn.sf:src() } }
    for _, name in ipairs(CREDENTIALS) do
        headers[name] = values(sent, name)
    end
    local said = core.httpclient():get({ url = VERIFY, headers = headers, timeout = TIMEOUT_MS })
    if not said or not said.status or said.status == 0 then
        return unavailable(txn)
    end
    if said.status ~= 200 then
        local reply = txn:reply({ status = said.status })
        for _, name in ipairs(SHOWN) do
            for _, value in ipairs(values(said.headers, name) or {}) do
                reply:add_header(name, value)
            end
        end
        reply:set_body(said.body or "")
        return txn:done(reply)
    end
    for _, name in ipairs(IDENTITY) do
        local value = values(said.headers, name)
        if value then
            txn.http:req_set_header(name, value[1])
        end
    end
end, 0)
