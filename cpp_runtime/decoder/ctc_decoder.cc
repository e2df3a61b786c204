#include "decoder/ctc_decoder.h"

#include <string>

namespace edge_speech {

Status broken_row(int64_t row) {
  return Status::internal("the encoder gave a NaN or infinite log_prob in output row " + std::to_string(row) +
                          "; check the artifact with `edge-speech verify`");
}

Status rows_after_finish() { return Status::failed_precondition("rows after finish(); call reset() first"); }

}  // namespace edge_speech
