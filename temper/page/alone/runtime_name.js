// Which build of the runtime this browser can run: the one for relaxed SIMD, or the slower one for all others. For the
// worker, which loads it, and for the service worker, which stores no other; so it is a script, not a module.

// A module of one function that uses an instruction of relaxed SIMD; LiteRT.js asks by the same one.
const RELAXED_SIMD = [
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253,
  128, 2, 11,
];

self.runtimeName = () =>
  WebAssembly.validate(new Uint8Array(RELAXED_SIMD)) ? "litert_wasm_internal" : "litert_wasm_compat_internal";
