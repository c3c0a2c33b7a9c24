-- Asks Tollgate whether Apache may let a call through (see apache.conf). Needs LuaSocket: Debian's lua-socket.

local http = require "socket.http"
local ltn12 = require "ltn12"

-- Where Tollgate is.
local VERIFY = "http://127.0.0.1:8080/api/verify"

http.TIMEOUT = 10

local IDENTITY = { "X-Merchant-Id", "X-Api-Key-Id", "X-Client-Id", "X-Environment", "X-Token-Expires",
                   "X-Scopes" }
local CREDENTIALS = { "X-API-KEY", "ACCESS-TOKEN", "Authorization" }
-- The headers of a refusal that the caller gets, in addition to status and body.
local SHOWN = { "WWW-Authenticate", "Cache-Control", "Retry-After", "X-Request-Id" }

local UNAVAILABLE = '{"httpStatus":false,"error":"temporarily_unavailable",'
    .. '"error_description":"the service cannot answer now; try again",'
    .. '"status":{"statusCode":503,"statusDescription":"the service cannot answer now; try again"}}'

-- Some frameworks treat X_Merchant_Id as X-Merchant-Id.
local function plain(name)
    return (name:lower():gsub("_", "-"))
end

local is_identity = {}
for _, name in ipairs(IDENTITY) do
    is_identity[plain(name)] = true
end

-- Headers that `Connection` lists are not passed on. A caller could list the names above to remove them, so keep only this.
local HOP = { ["close"] = true, ["keep-alive"] = true, ["upgrade"] = true }

local function connection(listed)
    local kept = {}
    for word in (listed or ""):lower():gmatch("[^%s,]+") do
        if HOP[word] then
            kept[#kept + 1] = word
        end
    end
    return kept[1] and table.concat(kept, ", ")
end

local function answer(r, status, body)
    r.status = status
    r.content_type = "application/json"
    r:write(body)
    return apache2.DONE
end

local function unavailable(r)
    r.err_headers_out["Retry-After"] = "1"
    r.err_headers_out["Cache-Control"] = "no-store"
    return answer(r, 503, UNAVAILABLE)
end

function check(r)
    -- Only the address of the connection (or the one from mod_remoteip), and nothing that the caller sent.
    local headers = { ["X-Forwarded-For"] = r.useragent_ip }
    for _, name in ipairs(CREDENTIALS) do
        headers[name] = r.headers_in[name]
    end

    local body = {}
    local done, status, replied = http.request {
        url = VERIFY,
        headers = headers,
        redirect = false,
        sink = ltn12.sink.table(body),
    }
    if not done then
        r:err("tollgate: " .. tostring(status))
        return unavailable(r)
    end
    if status ~= 200 then
        for _, name in ipairs(SHOWN) do
            if replied[name:lower()] then
                r.err_headers_out[name] = replied[name:lower()]
            end
        end
        return answer(r, status, table.concat(body))
    end

    -- Tollgate says who the caller is. This replaces anything that the caller sent under these names.
    for name in pairs(r:headers_in_table()) do
        if is_identity[plain(name)] then
            r.headers_in[name] = nil
        end
    end
    for _, name in ipairs(IDENTITY) do
        r.headers_in[name] = replied[name:lower()]
    end
    r.headers_in["Connection"] = connection(r.headers_in["Connection"])
    -- The API does not need these. (Authorization is passed on, because the API may use it itself.)
    r.headers_in["X-API-KEY"] = nil
    r.headers_in["ACCESS-TOKEN"] = nil
    -- Remove these, because mod_proxy would only append to X-Forwarded-For.
    r.headers_in["X-Forwarded-For"] = nil
    r.headers_in["Forwarded"] = nil
    return apache2.OK
end
