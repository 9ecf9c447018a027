-- What wrk asks `trainer serve`: predictions of an image of 28x28.
local pixels = {}
for i = 1, 784 do
  pixels[i] = i * 7919 % 256
end
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = "[" .. table.concat(pixels, ",") .. "]"
