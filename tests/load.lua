-- The request that wrk sends to `trainer serve`: the prediction for an image of 28x28 pixels.
local pixels = {}
for i = 1, 784 do
  pixels[i] = i * 7919 % 256
end
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = "[" .. table.concat(pixels, ",") .. "]"
